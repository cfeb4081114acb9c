"""Where the exported files of a job lie: a folder of this machine, or a prefix of a bucket.

Files are written in a folder, whichever it is. That of a bucket is a temporary one: what is not in
the bucket yet is put from there as whole objects, so that a reader sees the old one or the new one.

Exported files on record: what a stage wrote, what stays, what goes, and what was changed since.

A file lies outside the store, so anybody can change it or take it away. Its size and SHA-256 are
taken when it is written, and kept with the record of its stage, under its path within the folder of
the exports: a store that is copied or moved knows nothing of the files of the other place.

The page of a job: what it shows, where it lies, and whom it credits.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr

from popdask.config.settings import Job
from popdask.errors import InputError
from popdask.io import export
from popdask.io import paths as object_store
from popdask.io.export import colours_path
from popdask.io.paths import sweep
from popdask.report.page import Picture, write_report
from popdask.store.location import StoreError
from popdask.store.repository import RegionStore
from popdask.store.transaction import Transaction
from popdask.workflow.inputs import credits_of
from popdask.workflow.plan import StagePlan

#: GDAL's notes beside a raster; any program that opens the raster may add to them.
_NOTES = ".aux.xml"

#: Where an object tells the checksum of its bytes.
_CHECKSUM = "sha256"


class ExportPlace(Protocol):
    """Exported files by their names within the place; a name is a file's or that of a folder."""

    def whole_name(self, name: str) -> str:
        """Name a file as its user knows it."""

    def desk(self) -> AbstractContextManager[Path]:
        """Give the folder in which the files are written."""

    def missing(self, names: Collection[str]) -> set[str]:
        """Tell which files are not there."""

    def sum(self, name: str) -> dict[str, Any]:
        """Read a file, and tell its size and SHA-256."""

    def fetch(self, desk: Path, name: str) -> None:
        """Bring a file to the desk if it is not on it."""

    def put(self, desk: Path, name: str) -> None:
        """Put a file of the desk into its place, if it is on it and not in its place yet."""

    def remove(self, name: str) -> None:
        """Take a file away, with the notes of other programs beside it."""

    def sweep(self, name: str) -> None:
        """Take away what killed writes of a file have left."""


def export_place(job: Job) -> ExportPlace:
    """Tell where the exports of a job are; nothing is created, and nothing asked of a server."""
    if object_store.is_object(job.export_place):
        return _Prefix(*object_store.bucket_and_key(job.export_place))
    return _Folder(job.export_folder)


def file_sum(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file; of a folder, of all files in it; nothing of GDAL's notes."""
    if path.name.endswith(_NOTES):
        return {}
    if path.is_dir():
        return _sum_of_parts({part: file_sum(path / part) for part in _files_in(path)})
    with path.open("rb") as file:
        return _sum(file)


class _Folder:
    """A folder of this machine: its files are written in their place."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def whole_name(self, name: str) -> str:
        return str(self._path / name)

    def desk(self) -> AbstractContextManager[Path]:
        return nullcontext(self._path)

    def missing(self, names: Collection[str]) -> set[str]:
        return {name for name in names if not (self._path / name).exists()}

    def sum(self, name: str) -> dict[str, Any]:
        return file_sum(self._path / name)

    def fetch(self, desk: Path, name: str) -> None:
        """Leave it where it is."""

    def put(self, desk: Path, name: str) -> None:
        """Leave it where it is."""

    def remove(self, name: str) -> None:
        path = self._path / name
        if path.is_dir():  # a Zarr group
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        colours_path(path).unlink(missing_ok=True)

    def sweep(self, name: str) -> None:
        sweep(self._path / name)


class _Prefix:
    """A prefix of a bucket. A Zarr group is many objects, each of them whole."""

    def __init__(self, bucket: str, key: str) -> None:
        self._bucket, self._key = bucket, key

    def whole_name(self, name: str) -> str:
        return f"{object_store.SCHEME}{self._bucket}/{self._key}/{name}"

    def desk(self) -> AbstractContextManager[Path]:
        return _temporary_folder()

    def missing(self, names: Collection[str]) -> set[str]:
        try:
            there = set(self._names("", Delimiter="/"))
        except object_store.failures() as error:
            raise InputError(
                f"the exports' place {self.whole_name('')} cannot be reached ({_reason(error)}): "
                "check the bucket, AWS_ENDPOINT_URL, AWS_REGION and the credentials."
            ) from error
        return set(names) - there

    def sum(self, name: str) -> dict[str, Any]:
        if name.endswith(_NOTES):
            return {}
        if parts := list(self._names(f"{name}/")):
            return _sum_of_parts({part: self.sum(f"{name}/{part}") for part in parts})
        system, path = object_store.file_system(self.whole_name(name))
        with system.open(path, "rb") as file:
            return _sum(file)

    def fetch(self, desk: Path, name: str) -> None:
        if not (desk / name).exists():
            system, path = object_store.file_system(self.whole_name(name))
            with self._told():
                system.get_file(path, str(desk / name))

    def put(self, desk: Path, name: str) -> None:
        path = desk / name
        with self._told():
            if path.is_file():
                self._put_file(path, name)
            elif path.is_dir():
                parts = _files_in(path)
                for part in parts:
                    self._put_file(path / part, f"{name}/{part}")
                for part in set(self._names(f"{name}/")).difference(parts):
                    self._delete(f"{name}/{part}")

    def remove(self, name: str) -> None:
        with self._told():
            for part in list(self._names(f"{name}/")):
                self._delete(f"{name}/{part}")
            self._delete(name)
            self._delete(f"{name}{_NOTES}")

    def sweep(self, name: str) -> None:
        """Leave all: what a killed run wrote is in a temporary folder of its own machine."""

    def _put_file(self, path: Path, name: str) -> None:
        """Put an object, unless it is there; notes on a raster that is replaced go with it."""
        with path.open("rb") as file:
            told = _sum(file)
        if self._told_by_object(name) != told:
            system, place = object_store.file_system(self.whole_name(name))
            system.put_file(str(path), place, Metadata={_CHECKSUM: told["sha256"]})
            if path.suffix == ".tif":
                self._delete(f"{name}{_NOTES}")

    def _told_by_object(self, name: str) -> dict[str, Any]:
        """What an object says of itself without being read: size and checksum; if it is there."""
        try:
            head = object_store.client().head_object(Bucket=self._bucket, Key=f"{self._key}/{name}")
        except object_store.failures() as error:
            if _is_missing(error):
                return {}
            raise
        return {"size": head["ContentLength"], "sha256": head["Metadata"].get(_CHECKSUM)}

    def _names(self, below: str, **how: str) -> Iterator[str]:
        """List what lies under a name that ends with ``/``, by the rest of its key."""
        prefix = f"{self._key}/{below}"
        pages = object_store.client().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=prefix, **how):
            for item in page.get("Contents", ()):
                yield item["Key"].removeprefix(prefix)
            for item in page.get("CommonPrefixes", ()):
                yield item["Prefix"].removeprefix(prefix).rstrip("/")

    def _delete(self, name: str) -> None:
        object_store.client().delete_object(Bucket=self._bucket, Key=f"{self._key}/{name}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except object_store.failures() as error:
            raise StoreError(
                f"the exports' place {self.whole_name('')} cannot be read or written "
                f"({_reason(error)}): what is finished is kept; mend that, and run the job again "
                "to go on."
            ) from error


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="popdask-exports-") as folder:
        yield Path(folder)


def _files_in(folder: Path) -> list[str]:
    """The files below a folder, by their paths within it."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _sum(file: Any) -> dict[str, Any]:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": file.tell(), "sha256": digest}


def _sum_of_parts(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    lines = "".join(f"{name} {told['sha256']}\n" for name, told in sorted(parts.items()))
    size = sum(told["size"] for told in parts.values())
    return {"size": size, "sha256": hashlib.sha256(lines.encode()).hexdigest()}


def _is_missing(error: Exception) -> bool:
    answer = getattr(error, "response", {}).get("ResponseMetadata", {})
    return bool(answer.get("HTTPStatusCode") == 404)


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


Records = Mapping[str, Mapping[str, Any]]


class Exports:
    """The files of one stage of exports, under way.

    Parameters
    ----------
    work
        The work under way.
    stage
        The stage; its record tells the fingerprint of each frame's rasters, as ``rasters`` or else
        ``frames``.
    place
        Where the files are to be.
    folder
        Where they are written.
    """

    def __init__(
        self, work: Transaction, stage: StagePlan, place: ExportPlace, folder: Path
    ) -> None:
        self.folder = folder
        self._work, self._stage, self._place = work, stage, place
        self._record = work.records().get(stage.name, {})
        self._before = _within(folder, _told(self._record))
        self._missing = place.missing(self._before)
        self._rasters, self._rasters_before = map(_rasters, (stage.record, self._record))
        self._files: dict[str, Mapping[str, Any]] = {}

    def cogs(self, array: xr.DataArray, name: str) -> list[Path]:
        """Write frames as COGs, besides those that a run before wrote from the same.

        Returns
        -------
        list of Path
            The files of all frames, in the order of time.
        """
        paths = export.cog_paths(array, self.folder, name)
        prints = zip(paths, self._rasters.items(), strict=True)
        same = self._rasters_before.items()
        stale = [i for i, (path, one) in enumerate(prints) if not (one in same and self._has(path))]
        export.write_cogs(array, self.folder, name, frames=stale)
        for i, path in enumerate(paths):
            self._put_down(path, fresh=i in stale)
        return paths

    def geotiff(self, array: xr.DataArray, name: str) -> Path:
        """Write all frames as the bands of one GeoTIFF, if they are not those of a run before."""
        path = self.folder / f"{name}.tif"
        fresh = self._rasters != self._rasters_before or not self._has(path)
        if fresh:
            export.write_geotiff(array, path)
        self._put_down(path, fresh)
        return path

    def add(self, *paths: Path) -> None:
        """Put files on record that were written now."""
        for path in paths:
            self._put_down(path, fresh=True)

    def fetch(self, *paths: Path) -> None:
        """Have files in the folder that were not written now, to be read."""
        for path in paths:
            self._place.fetch(self.folder, self._name(path))

    @property
    def sha256(self) -> dict[Path, str]:
        """Checksums of the files on record so far."""
        return {self.folder / path: told["sha256"] for path, told in self._files.items() if told}

    def commit(self) -> None:
        """Put the files in their place, take away those of a run before, and commit the stage.

        Old files go before the commit: a run that is stopped in between removes the rest of them
        when it goes on. So do the temporary folders of a run that was killed while it wrote.
        """
        for name in self._files:
            self._place.put(self.folder, name)
        for name in set(self._before) - set(self._files):
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
        told = None if fresh else self._before.get(self._name(path))
        self._files[self._name(path)] = told or file_sum(path)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


@contextmanager
def exporting(work: Transaction, stage: StagePlan, job: Job) -> Iterator[Exports]:
    """Give the files of a stage of exports, and commit them if all went well."""
    place = export_place(job)
    with place.desk() as folder:
        exports = Exports(work, stage, place, folder)
        yield exports
        exports.commit()


def without_missing(records: Mapping[str, Any], job: Job, *stages: str) -> dict[str, Any]:
    """Give the records as if stages of exports were not done, where somebody took files away.

    Parameters
    ----------
    records
        The records of the finished stages, by name.
    job
        The settings, which say where the files are.
    *stages
        The stages of exports.

    Raises
    ------
    InputError
        If the place of the files cannot be reached.
    """
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
    """Tell the size and SHA-256 of every exported file on record, by its path in the folder."""
    files: dict[str, Mapping[str, Any]] = {}
    for record in records.values():
        files |= _told(record)
    return files


def changed_exports(records: Records, job: Job) -> Iterator[tuple[str, str]]:
    """Say of each exported file that is not what was written what is wrong, after its stage."""
    place = export_place(job)
    missing = place.missing(exported(records))
    for stage, record in records.items():
        for name, told in sorted(_told(record).items()):
            problem = "is not there" if name in missing else _problem(place, name, told)
            if problem:
                yield (
                    stage,
                    f"the exported file {place.whole_name(name)} {problem}; `popdask run JOB "
                    f"--only {stage} --force` writes it again.",
                )


def cycled(colours: Sequence[str], count: int) -> np.ndarray:
    """Give so many colours as numbers (count, 3), from the beginning again where there are fewer.

    Examples
    --------
    >>> cycled(["#000000", "#ffffff"], 3).tolist()
    [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    from matplotlib.colors import to_rgb

    return np.array([to_rgb(colours[i % len(colours)]) for i in range(count)]).reshape(-1, 3)


def _told(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The files of a record; those of earlier versions without size and checksum."""
    written = record.get("written", {})
    return dict(written) if isinstance(written, Mapping) else {path: {} for path in written}


def _within(folder: Path, files: Mapping[str, Any]) -> dict[str, Any]:
    """The files that lie in a folder; earlier versions recorded whole paths."""
    inside = {folder / path: told for path, told in files.items()}
    return {
        path.relative_to(folder).as_posix(): told
        for path, told in inside.items()
        if path.is_relative_to(folder)
    }


def _rasters(record: Mapping[str, Any]) -> dict[str, str]:
    return dict(record.get("rasters", record.get("frames", {})))


def _problem(place: ExportPlace, name: str, told: Mapping[str, Any]) -> str | None:
    try:
        found = place.sum(name) if told else {}
    except object_store.failures() as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if found == told:
        return None
    if found["size"] != told["size"]:
        return f"was changed: it has {found['size']:,} bytes, {told['size']:,} were written"
    return "was changed: its SHA-256 is another"


#: Draws the pictures of a job, from its store and a branch of it.
Illustrate = Callable[[Any, RegionStore, str], Iterable[Picture]]


def write_page(
    job: Job,
    region: RegionStore,
    branch: str,
    folder: Path,
    illustrate: Illustrate,
    record: Mapping[str, Any],
) -> Path:
    """Write the report of the results on a branch into a folder."""
    return write_report(
        region,
        folder / f"{job.name}_report.html",
        pictures=illustrate(job, region, branch),
        credits=credits_of(record),
        branch=branch,
        record=record,
    )
