"""The files that a population job reads: which they are, and whether they have changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popdask.errors import InputError
from popdask.imagery.census.zones import RASTERS
from popdask.job import PopulationJob
from popdask.pipelines.images import Times, by_time, files_of, iso, version_of
from popdask.pipelines.provenance import without_secrets


@dataclass(frozen=True)
class Sources:
    """The files of a job, by what they are to it."""

    mosaics: Times
    """The images of each time."""
    training: tuple[str, ...]
    """The images, or the folder, that labelled cells are cut from."""
    counts: tuple[str, ...]
    """People of the labelled cells."""
    truth: Times
    """People of the mosaics' cells, where they are known."""
    others: Mapping[str, str]
    """Weights and zones, by the setting that names them."""

    @classmethod
    def of(cls, job: PopulationJob) -> Sources:
        """Find the files of a job.

        Raises
        ------
        InputError
            If a pattern finds nothing.
        """
        mosaics = by_time(job.input.mosaic, job.input)
        training = cls._training(job, mosaics)
        counts = () if job.cells.counts is None or job.cells.folder else (job.cells.counts,)
        truth = {} if job.truth is None else by_time(job.truth.counts, job.input)
        if truth and not set(truth) & set(mosaics):
            raise InputError(
                f"[truth] counts has the times {_days(truth)}, the mosaics {_days(mosaics)}: "
                "expected at least one in common; name the files by time, or give [input] time."
            )
        others = {
            "presence.weights": job.presence.weights,
            "count.weights": job.count.weights,
            "census.zones": job.census and job.census.zones,
            "census.table": job.census and job.census.table,
        }
        known = {name: path for name, path in others.items() if path}
        zones = known.get("census.zones", "")
        if Path(zones).suffix.lower() in RASTERS and "census.table" not in known:
            raise InputError(
                f"[census] zones is {zones}, a raster of zone numbers, and there is no table of "
                "their totals: give [census] table, with the columns zone and total."
            )
        return cls(mosaics, training, counts, truth, known)

    @staticmethod
    def _training(job: PopulationJob, mosaics: Times) -> tuple[str, ...]:
        if job.cells.folder is not None:
            return (job.cells.folder,)
        if job.cells.mosaic is not None:
            return files_of(job.cells.mosaic)
        return mosaics[min(mosaics)]

    def fingerprints(self, known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Tell the version of each file, by its path; one on record is known."""
        of_times = (path for paths in (self.mosaics, self.truth) for path in _all(paths))
        paths = [*of_times, *self.training, *self.counts, *self.others.values()]
        return {without_secrets(path): version_of(path, known) for path in dict.fromkeys(paths)}


def _all(times: Times) -> Iterable[str]:
    return (path for paths in times.values() for path in paths)


def _days(times: Times) -> str:
    return ", ".join(iso(time)[:10] for time in times)
