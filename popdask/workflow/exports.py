"""Exported files on record, and the page of a job.

Exported files on record: what a stage wrote, what stays, what goes, and what was changed since.

A file lies outside the store, so anybody can change it or take it away. Its size and SHA-256 are
taken when it is written, and kept with the record of its stage, under its path within the folder of
the exports: a store that is copied or moved knows nothing of the files of the other place.

The page of a job: what it shows, where it lies, and whom it credits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from popdask.config.settings import Job
from popdask.io import export
from popdask.io import paths as object_store
from popdask.store.repository import RegionStore
from popdask.store.transaction import Transaction
from popdask.workflow.export_paths import (
    Claims,
    ExportPlace,
    Records,
    export_place,
    file_sum,
    paths_of,
    within,
    written_files,
)
from popdask.workflow.inputs import credits_of
from popdask.workflow.plan import StagePlan

if TYPE_CHECKING:
    from popdask.report.page import Picture

#: Draws the pictures of a job, from its store and a branch of it.
Illustrate = Callable[[Any, RegionStore, str], Iterable["Picture"]]


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
    inputs
        Paths and URLs of what the job reads.
    """

    def __init__(
        self,
        work: Transaction,
        stage: StagePlan,
        place: ExportPlace,
        folder: Path,
        inputs: Collection[str],
    ) -> None:
        self.folder = folder
        self._work, self._stage, self._place = work, stage, place
        records = work.records()
        self._record = records.get(stage.name, {})
        self._claims = Claims(place, folder, records, inputs)
        self._before = within(folder, written_files(self._record))
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

    def cogs(self, array: xr.DataArray, name: str) -> list[Path]:
        """Write frames as COGs, besides those that a run before wrote from the same."""
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

    def geotiff(self, array: xr.DataArray, name: str) -> Path:
        """Write all frames as the bands of one GeoTIFF, if they are not those of a run before."""
        path = self.folder / f"{name}.tif"
        fresh = self._rasters != self._rasters_before or not self._has(path)
        if fresh:
            self._claims.check_unchanged(self._name(path))
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
        return {
            self.folder / path: written["sha256"]
            for path, written in self._files.items()
            if written
        }

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
def exporting(
    work: Transaction, stage: StagePlan, job: Job, names: Collection[str], files: Records
) -> Iterator[Exports]:
    """Return the files of a stage of exports, and commit them if all went well."""
    place = export_place(job)
    with place.desk() as folder:
        exports = Exports(work, stage, place, folder, paths_of(files))
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
        files |= written_files(record)
    return files


def changed_exports(records: Records, job: Job) -> Iterator[tuple[str, str]]:
    """Say of each exported file that is not what was written what is wrong, after its stage."""
    place = export_place(job)
    missing = place.missing(exported(records))
    for stage, record in records.items():
        for name, written in sorted(written_files(record).items()):
            problem = "is not there" if name in missing else _problem(place, name, written)
            if problem:
                yield (
                    stage,
                    f"the exported file {place.whole_name(name)} {problem}; `popdask run JOB "
                    f"--only {stage} --force` writes it again.",
                )


def cycled(colours: Sequence[str], count: int) -> np.ndarray:
    """Give so many colours as numbers (count, 3), from the beginning again after the last."""
    from matplotlib.colors import to_rgb

    return np.array([to_rgb(colours[i % len(colours)]) for i in range(count)]).reshape(-1, 3)


def _rasters(record: Mapping[str, Any]) -> dict[str, str]:
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


def said_of(job: Job, record: Mapping[str, Any]) -> dict[str, str]:
    """Say what exported arrays are, by CF: nothing of when, so that files stay the same."""
    software = f"popdask {record['versions']['popdask']}"
    said = {
        "title": job.title or job.name,
        "institution": job.institution,
        "source": software,
        "history": f"written by {software}",
        "license": "\n".join(credits_of(record)),
    }
    return {key: text for key, text in said.items() if text}


def write_page(
    job: Job,
    region: RegionStore,
    branch: str,
    folder: Path,
    illustrate: Illustrate,
    record: Mapping[str, Any],
) -> Path:
    """Write the report of the results on a branch into a folder."""
    from popdask.report.page import write_report  # which loads Bokeh and matplotlib

    return write_report(
        region,
        folder / f"{job.name}_report.html",
        pictures=illustrate(job, region, branch),
        credits=credits_of(record),
        branch=branch,
        record=record,
    )
