"""Exported files put on record: those that a run before wrote and this one did not are removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from popdask.pipelines.plan import StagePlan
from popdask.store import Work


def commit_exports(work: Work, stage: StagePlan, written: Iterable[str | Path]) -> None:
    """Commit the stage of exports, and take away files that it wrote before and not now.

    Parameters
    ----------
    work
        The work under way.
    stage
        The stage; its record gets the paths as ``written``.
    written
        All files of the stage that are wanted, written now or by a run before.

    Notes
    -----
    Old files go before the commit: a run that is stopped in between removes the rest of them when
    it goes on.
    """
    paths = [str(path) for path in written]
    before = work.records().get(stage.name, {}).get("written", [])
    for path in map(Path, set(before).difference(paths)):
        if path.is_dir():  # a Zarr group
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    work.write_files(stage.name, {}, {**stage.record, "written": paths})


def without_missing(records: Mapping[str, Any], *stages: str) -> dict[str, Any]:
    """Give the records as if stages of exports were not done, where somebody took files away.

    Parameters
    ----------
    records
        The records of the finished stages, by name.
    *stages
        The stages of exports.
    """
    found = dict(records)
    for stage in stages:
        written = found.get(stage, {}).get("written", [])
        if not all(Path(path).exists() for path in written):
            found[stage] = {"written": written}
    return found
