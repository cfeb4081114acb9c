"""Fetched rasters laid as frames, with their years and credits.

Who made the rasters, and what they ask for in return.

The years that are wanted, of those that a source has.

The folder that frames are fetched to: each is there whole or not at all, and on record.

``fetched.json`` says of every frame where it is from and what its SHA-256 is, so that fetching
again compares instead of bringing; ``CREDITS.txt`` says whom to credit.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pooch  # type: ignore[import-untyped]
from filelock import FileLock
from rasterio.errors import RasterioError

from popdask.datasets.transfer import FetchError
from popdask.errors import InputError
from popdask.io.kinds import open_raster
from popdask.io.paths import write_text

CC_BY = "Creative Commons Attribution 4.0 International (CC BY 4.0)"
CC_BY_URL = "https://creativecommons.org/licenses/by/4.0/"


@dataclass(frozen=True)
class Credit:
    """The credit that a data set asks for.

    Examples
    --------
    >>> credit = Credit("WorldPop", "WorldPop (2025).", "https://www.worldpop.org")
    >>> credit.licence_url.rpartition("/licenses/")[2]
    'by/4.0/'
    """

    title: str
    """Its name."""
    citation: str
    """How it is cited."""
    page: str
    """Where it is described."""
    licence: str = CC_BY
    """What may be done with it."""
    licence_url: str = CC_BY_URL
    """Where the licence is."""

    def __str__(self) -> str:
        return f"{self.title}: {self.citation} {self.licence}."


def credits_text(files: dict[str, dict[str, str]], credits: dict[str, Credit]) -> str:
    """Write the credits of a folder."""
    paragraphs = []
    for key, credit in sorted(credits.items()):
        names = sorted(name for name, file in files.items() if file["credit"] == key)
        lines = [credit.title, credit.citation, f"{credit.licence}, {credit.licence_url}"]
        lines += [credit.page, ""]
        lines += [f"  {name}{_changed(files[name]['made'])}" for name in names]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs) + "\n"


def _changed(made: str) -> str:
    return f"  (changed: {made})" if made else "  (as published)"


Years = str | int | Iterable[int]


def wanted_years(years: Years, available: Sequence[int], source: str) -> list[int]:
    """Return which years are wanted."""
    if isinstance(years, str) and ":" in years:
        first, last = _numbers(years.split(":", 1), years)
        found = [year for year in available if first <= year <= last]
        absent = [year for year in (first, last) if not available[0] <= year <= available[-1]]
        if not absent and not found:
            absent = [first, last]
    else:
        numbers = _numbers(years.split(","), years) if isinstance(years, str) else years
        found = sorted({numbers} if isinstance(numbers, int) else {int(year) for year in numbers})
        absent = [year for year in found if year not in available]
    if absent or not found:
        raise InputError(
            f"years is {_shown(years)}, but {source} has {described(available)}; ask for those."
        )
    return found


def described(years: Sequence[int]) -> str:
    """Say which years there are."""
    first, last = years[0], years[-1]
    steps = {later - year for year, later in itertools.pairwise(years)}
    if not steps:
        return f"{first}"
    if len(steps) > 1:
        return ", ".join(map(str, years))
    (step,) = steps
    return f"{first} to {last}" + (f", every {step} years" if step > 1 else "")


def _numbers(texts: Sequence[str], years: object) -> list[int]:
    try:
        return [int(text) for text in texts]
    except ValueError:
        raise InputError(
            f"years is {years!r}; expected a span such as 2000:2020, or years such as 2000,2010; "
            "correct it."
        ) from None


def _shown(years: object) -> str:
    return repr(years) if isinstance(years, str) else str(years)


MANIFEST, CREDITS = "fetched.json", "CREDITS.txt"


@dataclass(frozen=True)
class Fetched:
    """Frames that were fetched.

    Examples
    --------
    >>> credit = Credit("WorldPop", "WorldPop (2025).", "https://www.worldpop.org")
    >>> print(Fetched({}, "data/lux_{time:%Y}.tif", credit, new=0).setting)
    frames = "data/lux_{time:%Y}.tif"
    """

    frames: dict[int, Path]
    """File of each year."""
    pattern: str
    """Names them all, for `popdask.open_frames` and job files."""
    credit: Credit
    """Whom to credit."""
    new: int
    """How many of them were not in the folder before."""

    @property
    def setting(self) -> str:
        """The line for a job file."""
        return f"frames = {json.dumps(self.pattern, ensure_ascii=False)}"


class FrameFolder:
    """The folder of the frames."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{path} cannot be the folder of the frames ({error.strerror}); expected a folder "
                "that may be made and written; choose another."
            ) from error

    def holds(self, name: str) -> bool:
        """Return whether a frame is here, as it was when it was fetched."""
        path = self.path / name
        if not path.exists():
            return False
        known = self._manifest()["files"].get(name)
        if known and pooch.file_hash(str(path)) == known["sha256"]:
            return True
        was = "is not as it was fetched" if known else "was not fetched by popdask"
        raise InputError(f"{path} is there and {was}; move it away or choose another folder.")

    def put(
        self,
        name: str,
        write: Callable[[Path], None],
        sources: Mapping[str, str],
        credit: Credit,
        made: str = "",
    ) -> None:
        """Let a frame be written, and put it in its place when it is whole."""
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".fetch-") as folder:
            fresh = Path(folder) / name
            write(fresh)
            check_raster(fresh, name)
            entry = {
                "sha256": pooch.file_hash(str(fresh)),
                "bytes": fresh.stat().st_size,
                "from": dict(sources),
                "made": made,
                "credit": credit.title,
                "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            with FileLock(self.path / ".fetched.lock"):
                self._record(name, entry, credit)
                fresh.replace(self.path / name)

    def missing(self, pattern: str, years: Iterable[int]) -> dict[int, str]:
        """Name the frames that are not here yet, by year."""
        names = {year: _name(pattern, year) for year in years}
        return {year: name for year, name in names.items() if not self.holds(name)}

    def fetched(self, pattern: str, years: Iterable[int], credit: Credit, new: int) -> Fetched:
        """Return the frames that are here now, by a pattern as `missing` takes it."""
        folder = self.path.absolute().as_posix().replace("{", "{{").replace("}", "}}")
        paths = {year: self.path / _name(pattern, year) for year in years}
        return Fetched(paths, f"{folder}/{pattern}", credit, new)

    def _manifest(self) -> dict[str, Any]:
        try:
            manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            if not isinstance(manifest, dict):
                raise TypeError("it is no table")
            for part in ("credits", "files"):
                if not all(isinstance(entry, dict) for entry in manifest[part].values()):
                    raise TypeError(f"its {part} are none")
        except FileNotFoundError:
            return {"credits": {}, "files": {}}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.path / MANIFEST} is not what popdask writes ({error}); move it and the "
                "frames away, and fetch again."
            ) from error
        return manifest

    def _record(self, name: str, entry: dict[str, Any], credit: Credit) -> None:
        manifest = self._manifest()
        manifest["credits"][credit.title] = asdict(credit)
        manifest["files"][name] = entry
        credits = {key: Credit(**fields) for key, fields in manifest["credits"].items()}
        text = credits_text(manifest["files"], credits)
        for path, content in (
            (self.path / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False)),
            (self.path / CREDITS, text),
        ):
            write_text(path, content)


def _name(pattern: str, year: int) -> str:
    return pattern.replace("{time:%Y}", str(year))


def link(source: Path, target: Path) -> None:
    """Let a file be in two places; copy it where the disk is another one."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def check_raster(path: Path, name: str) -> None:
    """Raise what is wrong if a file is not a raster."""
    try:
        with open_raster(str(path)):
            pass
    except RasterioError as error:
        raise FetchError(
            f"{name} is not a raster that GDAL can open: the server sent something else; it is not "
            "kept."
        ) from error
