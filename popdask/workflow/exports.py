"""Exports of a job: where they go, what they may replace, and what is on record of them.

They go to a folder of this machine or a prefix of a bucket. Files are written in a folder,
whichever it is. That of a bucket is a temporary one: what is not in the bucket yet is put from
there as whole objects, so that a reader sees the old one or the new one.

An export replaces or takes away its own files, unchanged, and never an input. The store has on
record what was written, with checksums, and which names were free when a run began to write.
Whatever else lies in the way is somebody's: the run is refused before it computes.

A file lies outside the store, so anybody can change it or take it away. Its size and SHA-256 are
taken when it is written, and kept with the record of its stage, under its path within the folder of
the exports: a store that is copied or moved knows nothing of the files of the other place.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popdask.config.settings import Job
from popdask.errors import InputError
from popdask.io import paths as object_store
from popdask.io.paths import file_of, sweep
from popdask.store.location import StoreError
from popdask.workflow.inputs import NOTES, file_sum, files_in, sum_of, sum_of_parts
from popdask.workflow.plan import StagePlan

if TYPE_CHECKING:
    import xarray as xr

#: Where an object has the checksum of its bytes.
_CHECKSUM = "sha256"
_log = logging.getLogger(__name__)
Records = Mapping[str, Mapping[str, Any]]


def export_place(job: Job) -> ExportPlace:
    """Return where the exports of a job are; nothing is created, and nothing asked of a server."""
    if object_store.is_object(job.export_place):
        return _Prefix(*object_store.bucket_and_key(job.export_place))
    return _Folder(job.export_folder)


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from others, by whatever name and link it is reached."""
    status = path.stat()
    return status.st_dev, status.st_ino


class _Folder:
    """A folder of this machine: its files are written in their place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identities: dict[Collection[str], set[tuple[int, int]]] = {}

    def whole_name(self, name: str) -> str:
        """Name a file as its user knows it."""
        return str(self._path / name)

    def desk(self) -> AbstractContextManager[Path]:
        """Return the folder in which the files are written."""
        return nullcontext(self._path)

    def check(self) -> None:
        """Refuse a place where no file can be written; nothing of the check stays."""
        try:
            places = (self._path, *self._path.parents)
            with tempfile.TemporaryFile(dir=next(filter(os.path.lexists, places))):
                pass
        except OSError as error:
            raise InputError(
                f"the exports' folder {self._path} cannot be written ({error.strerror}); expected "
                "a folder in which files can be made; give [output] folder another one."
            ) from error

    def missing(self, names: Collection[str]) -> set[str]:
        """Return which files are not there."""
        return {name for name in names if not os.path.lexists(self._path / name)}

    def is_one_of(self, name: str, others: Collection[str]) -> bool:
        """Return whether a file is one of some paths and URLs, by whatever name."""
        if others not in self._identities:  # looked at once for all names
            files = (Path(file_of(other)) for other in others if "://" not in other)
            self._identities[others] = {_identity(file) for file in files if file.exists()}
        path = self._path / name
        return path.exists() and _identity(path) in self._identities[others]

    def is_dangling(self, name: str) -> bool:
        """Return whether there is but a link, which leads nowhere."""
        return not (self._path / name).exists()

    def is_marked(self, name: str) -> bool:
        """Return whether a file says itself that popdask has written it."""
        from popdask.report.page import is_page  # which loads Bokeh

        return is_page(self._path / name)

    def sum(self, name: str) -> dict[str, Any]:
        """Read a file, and return its size and SHA-256."""
        return file_sum(self._path / name)

    def fetch(self, desk: Path, name: str) -> None:
        """Bring a file to the desk if it is not on it: here each is."""

    def put(self, desk: Path, name: str) -> None:
        """Put a file of the desk into its place, if it is on it and not in its place yet."""

    def remove(self, name: str) -> None:
        """Take a file away, with the notes of other programs beside it."""
        from popdask.io.export import colours_path

        path = self._path / name
        if path.is_dir():  # a Zarr group
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        colours_path(path).unlink(missing_ok=True)

    def sweep(self, name: str) -> None:
        """Take away what killed writes of a file have left."""
        sweep(self._path / name)


class _Prefix(object_store.Objects):
    """A prefix of a bucket, likewise. A Zarr group is many objects, each of them whole."""

    def whole_name(self, name: str) -> str:
        return f"{self}/{name}"

    @contextmanager
    def desk(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="popdask-exports-") as folder:
            yield Path(folder)

    def check(self) -> None:
        """Leave it to `missing`, which asks the server."""

    def missing(self, names: Collection[str]) -> set[str]:
        try:
            there = {name.rstrip("/") for name in self.entries()}
        except object_store.failures() as error:
            raise InputError(
                f"the exports' place {self.whole_name('')} cannot be reached ({_reason(error)}): "
                "check the bucket, AWS_ENDPOINT_URL, AWS_REGION and the credentials."
            ) from error
        return set(names) - there

    def is_one_of(self, name: str, others: Collection[str]) -> bool:
        return self.whole_name(name) in others

    def is_dangling(self, name: str) -> bool:
        return False

    def is_marked(self, name: str) -> bool:
        """Objects of popdask's have their checksum; those of a group do, too."""
        with self._store_errors():
            part = next(self._parts(name), None)
            metadata = self._metadata_of(name if part is None else f"{name}/{part}")
        return bool(metadata.get(_CHECKSUM))

    def sum(self, name: str) -> dict[str, Any]:
        if name.endswith(NOTES):
            return {}
        if parts := list(self._parts(name)):
            return sum_of_parts({part: self.sum(f"{name}/{part}") for part in parts})
        system, path = object_store.file_system(self.whole_name(name))
        with system.open(path, "rb") as file:
            return sum_of(file)

    def fetch(self, desk: Path, name: str) -> None:
        if not (desk / name).exists():
            system, path = object_store.file_system(self.whole_name(name))
            with self._store_errors():
                system.get_file(path, str(desk / name))

    def put(self, desk: Path, name: str) -> None:
        path = desk / name
        with self._store_errors():
            if path.is_file():
                self._put_file(path, name)
            elif path.is_dir():
                parts = files_in(path)
                for part in parts:
                    self._put_file(path / part, f"{name}/{part}")
                for part in set(self._parts(name)).difference(parts):
                    self.delete(f"{name}/{part}")

    def remove(self, name: str) -> None:
        with self._store_errors():
            for part in list(self._parts(name)):
                self.delete(f"{name}/{part}")
            self.delete(name)
            self.delete(f"{name}{NOTES}")

    def sweep(self, name: str) -> None:
        """Leave all: what a killed run wrote is in a temporary folder of its own machine."""

    def _put_file(self, path: Path, name: str) -> None:
        """Put an object, unless it is there; notes on a raster that is replaced go with it."""
        with path.open("rb") as file:
            checksum = sum_of(file)
        if self._metadata_of(name) != checksum:
            system, place = object_store.file_system(self.whole_name(name))
            system.put_file(str(path), place, Metadata={_CHECKSUM: checksum["sha256"]})
            if path.suffix == ".tif":
                self.delete(f"{name}{NOTES}")

    def _metadata_of(self, name: str) -> dict[str, Any]:
        """What an object says of itself without being read: size and checksum; if it is there."""
        try:
            head = object_store.client().head_object(**self.place(name))
        except object_store.failures() as error:
            answer = getattr(error, "response", {}).get("ResponseMetadata", {})
            if answer.get("HTTPStatusCode") == 404:
                return {}
            raise
        return {"size": head["ContentLength"], "sha256": head["Metadata"].get(_CHECKSUM)}

    def _parts(self, name: str) -> Iterator[str]:
        """Name the objects of a group."""
        return (part for part, _ in self.listed(f"{name}/"))

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except object_store.failures() as error:
            raise StoreError(
                f"the exports' place {self.whole_name('')} cannot be read or written "
                f"({_reason(error)}): what is finished is kept; mend that, and run the job again "
                "to go on."
            ) from error


#: Exported files by their names within the place; a name is a file's or that of a folder.
ExportPlace = _Folder | _Prefix


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class Claims:
    """What is known of the files that lie where exports are to be."""

    def __init__(self, place: ExportPlace, records: Records, inputs: Collection[str]) -> None:
        self._place, self._inputs = place, frozenset(inputs)
        self._written: dict[str, Mapping[str, Any]] = {}  # with size and checksum
        self._begun: set[str] = set()  # names that were free when a run that was stopped began
        self._again: set[str] = set()
        for record in records.values():
            files = record.get("written", {})
            self._written |= files
            self._begun.update(record.get("writing", ()))
            self._again.update(files if record.get("again") else ())

    def free(self, names: Iterable[str]) -> list[str]:
        """Check that names are free or our own; give those that are free."""
        names = [name for name in names if not name.endswith(NOTES)]
        rasters = [name for name in names if name.endswith(".tif")]
        missing = self._place.missing([*names, *(f"{name}{NOTES}" for name in rasters)])
        for name in names:
            if name not in missing:
                self._check_own(name)
            elif f"{name}{NOTES}" not in missing and name in rasters and not self._known(name):
                self._check_own(f"{name}{NOTES}")
        return [name for name in names if name in missing and not self._known(name)]

    def check_unchanged(self, name: str) -> None:
        """Refuse to replace a file of our own that somebody has changed."""
        checksum = self._written.get(name)
        if not checksum or name in self._again or self._place.missing([name]):
            return
        if self._place.is_dangling(name) or self._place.sum(name) != checksum:
            raise InputError(
                f"the exported file {self._place.whole_name(name)} was changed since it was "
                "written, and would be written anew: move it away, or replace it with "
                "`popdask run JOB --force`."
            )

    def is_removable(self, name: str) -> bool:
        """Return whether a file may be taken away: what changed since stays, and is reported."""
        if self._place.missing([name]):
            return True
        if name.endswith(NOTES):
            return bool(self._place.missing([name.removesuffix(NOTES)]))
        checksum = self._written.get(name)
        if checksum and not self._place.is_one_of(name, self._inputs):
            try:
                if not self._place.is_dangling(name) and self._place.sum(name) == checksum:
                    return True
            except object_store.failures():
                pass  # what cannot be read is not known to be ours
        _log.warning(
            "%s is no export any more, but an input, or not what was written: it stays where it "
            "is, and is no longer on record.",
            self._place.whole_name(name),
        )
        return False

    def _known(self, name: str) -> bool:
        return name in self._written or name in self._begun

    def _check_own(self, name: str) -> None:
        where = self._place.whole_name(name)
        if self._place.is_one_of(name, self._inputs):
            raise InputError(
                f"the export {where} is one of the job's inputs, and would replace it: give "
                "[output] folder another folder, or the job another name."
            )
        ours = self._known(name) or self._place.is_marked(name)
        if not ours or self._place.is_dangling(name):
            raise InputError(
                f"the export {where} is there already, and this region has not written it: move "
                "it away, or give [output] folder another folder."
            )


def check_exports(job: Job, names: Collection[str], inputs: Collection[str], records: Any) -> None:
    """Refuse exports, before a run computes anything, that would replace what is not their own."""
    if names:
        place = export_place(job)
        Claims(place, records, inputs).free(names)


def check_writable(job: Job, names: Collection[str]) -> None:
    """Refuse a place of exports, before a run computes anything, where none can be written."""
    if names:
        export_place(job).check()


def paths_of(files: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Name the files of fingerprints, and what they are put together from."""
    paths = {version["path"] for version in files.values() if version.get("path")}
    return paths.union(*(version.get("sources", ()) for version in files.values()))


class Exports:
    """The files of a stage of exports, under way: written in a folder, then put in their place."""

    def __init__(self, run: Any, stage: StagePlan, place: ExportPlace, folder: Path) -> None:
        self.folder, self._begin = folder, run.job.name
        self.listed: dict[str, Path] = {}  # files of all frames, by what they are
        self._work, self._stage, self._place = run.work, stage, place
        records = run.work.records()
        self._record = records.get(stage.name, {})
        self._claims = Claims(place, records, paths_of(run.files))
        self._before = self._record.get("written", {})
        self._missing = place.missing(self._before)
        self._rasters, self._rasters_before = map(_rasters, (stage.record, self._record))
        self._files: dict[str, Mapping[str, Any]] = {}

    def claim(self, names: Collection[str]) -> None:
        """Check that files may be written; put on record which of their names are free."""
        free = self._claims.free(names)
        for name in names:
            if not self._stage.record.get("rasters") or not name.endswith(".tif"):
                self._claims.check_unchanged(name)
        if set(free) - set(self._record.get("writing", ())):
            self._work.note(self._stage.name, {"writing": sorted(free)})
            self._record = self._work.records()[self._stage.name]

    def path(self, end: str) -> Path:
        """Name a file of the job."""
        return self.folder / f"{self._begin}{end}"

    def cogs(self, array: xr.DataArray, kind: str) -> list[Path]:
        """Write frames as COGs, besides those that a run before wrote from the same."""
        from popdask.io import export

        name = f"{self._begin}_{kind}"
        paths = export.cog_paths(array, self.folder, name)
        prints = zip(paths, self._rasters.items(), strict=True)
        same = self._rasters_before.items()
        stale = [i for i, (path, one) in enumerate(prints) if not (one in same and self._has(path))]
        for i in stale:
            self._claims.check_unchanged(self._name(paths[i]))
        export.write_cogs(array, self.folder, name, frames=stale)
        for i, path in enumerate(paths):
            self._put_down(path, fresh=i in stale)
        return paths

    def fetched(self, array: xr.DataArray, kind: str) -> list[Path]:
        """Have the COGs of an array in the folder to be read, whenever they were written."""
        from popdask.io.export import cog_paths

        paths = cog_paths(array, self.folder, f"{self._begin}_{kind}")
        for path in paths:
            self._place.fetch(self.folder, self._name(path))
        return paths

    def geotiff(self, array: xr.DataArray, kind: str) -> None:
        """Write all frames as the bands of one GeoTIFF, if they are not those of a run before."""
        from popdask.io import export

        path = self.listed[kind] = self.path(f"_{kind}.tif")
        fresh = self._rasters != self._rasters_before or not self._has(path)
        if fresh:
            self._claims.check_unchanged(self._name(path))
            export.write_geotiff(array, path)
        self._put_down(path, fresh)

    def add(self, path: Path, kind: str = "") -> None:
        """Put a file on record that was written now; one of all frames by what it is."""
        self._put_down(path, fresh=True)
        if kind:
            self.listed[kind] = path

    @property
    def sha256(self) -> dict[Path, str]:
        """Checksums of the files of other stages, and of those of this one so far."""
        records = self._work.records()
        records.pop(self._stage.name, None)
        files = exported(records) | self._files
        return {self.folder / path: written["sha256"] for path, written in files.items() if written}

    def commit(self) -> None:
        """Put the files in their place, take away those of a run before, and commit the stage."""
        # What was changed since it was written stays. Old files go before the commit: a run that
        # is stopped in between removes the rest of them when it goes on. So do the temporary
        # folders of a run that was killed while it wrote.
        for name in self._files:
            self._place.put(self.folder, name)
        for name in sorted(set(self._before) - set(self._files)):
            if self._claims.is_removable(name):
                self._place.remove(name)
        for name in {**self._before, **self._files}:
            self._place.sweep(name)
        record = {**self._stage.record, "written": self._files}
        if record.items() <= self._record.items():  # files were lost: no commit without a change
            self._work.forget([self._stage.name])
        self._work.write_files(self._stage.name, {}, record)

    def _has(self, path: Path) -> bool:
        return self._name(path) in self._before.keys() - self._missing

    def _put_down(self, path: Path, fresh: bool) -> None:
        """Note a file; one that was not written now keeps what was noted when it was."""
        written = None if fresh else self._before.get(self._name(path))
        self._files[self._name(path)] = written or file_sum(path)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


@contextmanager
def exporting(run: Any, stage: StagePlan, names: Collection[str]) -> Iterator[Exports]:
    """Return the files of a stage of exports, and commit them if all went well."""
    place = export_place(run.job)
    with place.desk() as folder:
        exports = Exports(run, stage, place, folder)
        exports.claim(names)
        yield exports
        exports.commit()


def without_missing(records: Mapping[str, Any], job: Job, *stages: str) -> dict[str, Any]:
    """Return the records as if stages of exports were not done, where somebody took files away."""
    found = dict(records)
    written = {stage: found.get(stage, {}).get("written", {}) for stage in stages}
    names = [name for files in written.values() for name in files]
    asked: Sequence[str] = getattr(job.output, "export", ())
    missing = export_place(job).missing(names) if names or asked else set()
    for stage, files in written.items():
        if missing.intersection(files):
            found[stage] = {"written": files}
    return found


def exported(records: Records) -> dict[str, Mapping[str, Any]]:
    """Return the size and SHA-256 of every exported file on record, by its path in the folder."""
    files: dict[str, Mapping[str, Any]] = {}
    for record in records.values():
        files |= record.get("written", {})
    return files


def changed_exports(records: Records, job: Job) -> Iterator[tuple[str, str]]:
    """Say of each exported file that is not what was written what is wrong, after its stage."""
    place = export_place(job)
    missing = place.missing(exported(records))
    for stage, record in records.items():
        for name, written in sorted(record.get("written", {}).items()):
            problem = "is not there" if name in missing else _problem(place, name, written)
            if problem:
                yield (
                    stage,
                    f"the exported file {place.whole_name(name)} {problem}; `popdask run JOB "
                    f"--only {stage} --force` writes it again.",
                )


def _rasters(record: Mapping[str, Any]) -> dict[str, str]:
    """The fingerprint of each frame's rasters."""
    return dict(record.get("rasters", record.get("frames", {})))


def _problem(place: ExportPlace, name: str, written: Mapping[str, Any]) -> str | None:
    try:
        found = place.sum(name) if written else {}
    except object_store.failures() as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if found == written:
        return None
    if found["size"] != written["size"]:
        return f"was changed: it has {found['size']:,} bytes, {written['size']:,} were written"
    return "was changed: its SHA-256 is another"
