"""The files that a population job reads: which they are, and whether they have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from popdask import cube
from popdask.cube.frames import frame_time
from popdask.errors import InputError
from popdask.job import PopulationJob
from popdask.job.images import Input
from popdask.pipelines.provenance import file_fingerprint, without_secrets

ANY_TIME = np.datetime64("2000-01-01", "s")
Times = Mapping[np.datetime64, tuple[str, ...]]


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
        return cls(mosaics, training, counts, truth, known)

    @staticmethod
    def _training(job: PopulationJob, mosaics: Times) -> tuple[str, ...]:
        if job.cells.folder is not None:
            return (job.cells.folder,)
        if job.cells.mosaic is not None:
            return _files(job.cells.mosaic)
        return mosaics[min(mosaics)]

    def fingerprints(self, known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Tell the version of each file, by its path; one on record is known."""
        of_times = (path for paths in (self.mosaics, self.truth) for path in _all(paths))
        paths = [*of_times, *self.training, *self.counts, *self.others.values()]
        return {without_secrets(path): version_of(path, known) for path in dict.fromkeys(paths)}


def checksums(files: Mapping[str, Mapping[str, Any]], paths: Iterable[str]) -> list[str]:
    """What tells the versions of some files apart, in their order."""
    return [cube.frame_version(files[without_secrets(path)]) for path in paths]


def iso(time: np.datetime64) -> str:
    """Write a time as the store does."""
    return str(time.astype("datetime64[s]"))


def _all(times: Times) -> Iterable[str]:
    return (path for paths in times.values() for path in paths)


def by_time(patterns: str | tuple[str, ...], settings: Input) -> Times:
    """The files of each time, in the order of their patterns."""
    found: dict[np.datetime64, tuple[str, ...]] = {}
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        if "{" in pattern:
            times = cube.find_frames(pattern, settings.start, settings.end)
            parts: dict[np.datetime64, tuple[str, ...]] = {t: (path,) for t, path in times.items()}
        else:
            time = ANY_TIME if settings.time is None else frame_time(settings.time)
            parts = {time: _files(pattern)}
        for time, paths in parts.items():
            found[time] = found.get(time, ()) + paths
    return {time: found[time] for time in sorted(found)}


def _days(times: Times) -> str:
    return ", ".join(iso(time)[:10] for time in times)


def _files(patterns: str | tuple[str, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        if "{" in pattern:
            raise InputError(f"{pattern!r} has a time in it: expected the files of one mosaic.")
        names = [pattern]
        if "*" in pattern and "://" not in pattern:
            found_here = Path(pattern).parent.glob(Path(pattern).name)
            names = sorted(map(str, found_here))
        if not names:
            raise InputError(f"the pattern {pattern!r} finds no file; correct it")
        found += names
    return tuple(found)


def version_of(path: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The version of a file, or of a folder by the names, sizes and times within."""
    if "://" in path or not Path(path).is_dir():
        return file_fingerprint(path, known.get(path, {}))
    inside = sorted(p for p in Path(path).rglob("*") if p.is_file())
    told = [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in inside]
    digest = hashlib.sha256(repr(told).encode()).hexdigest()
    return {"path": path, "size": sum(size for _, size, _ in told), "mtime": None, "sha256": digest}
