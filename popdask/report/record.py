"""What a report tells of the run: inputs with checksums, settings, stages, versions, machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel

from popdask.job.files import JOBS
from popdask.settings_files import table_of
from popdask.store import Finished


@dataclass(frozen=True)
class Told:
    """A part of the run's record, as a table."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def record_tables(record: Mapping[str, Any], stages: Iterable[Finished]) -> list[Told]:
    """Put the record of a run into tables.

    Parameters
    ----------
    record
        As of :meth:`popdask.store.RegionStore.run_record`.
    stages
        The stages that were computed, each as it was computed last.

    Returns
    -------
    list of Told
        Inputs, settings, stages and versions; what there is nothing of is left out.
    """
    tables = [
        Told(
            "Input files",
            "The files that were read, with their SHA-256 checksums.",
            ("for", "file", "bytes", "SHA-256"),
            list(_inputs(record.get("inputs", {}))),
        ),
        Told(
            "Settings",
            "What the job file says, and the defaults of what it leaves open.",
            ("setting", "value", "meaning"),
            list(_settings(record.get("settings", {}))),
        ),
        Told(
            "Stages",
            "What was computed, each stage when it was computed last.",
            ("stage", "work", "began (UTC)", "seconds"),
            [
                (stage.stage, stage.work, _moment(stage.started), f"{stage.seconds:,.1f}")
                for stage in stages
            ],
        ),
        Told(
            "Software and machine",
            "Versions that the numbers may depend on.",
            ("what", "version"),
            [(str(name), str(value)) for name, value in _made_with(record)],
        ),
    ]
    return [table for table in tables if table.rows]


def latest_stages(stages: Iterable[Finished]) -> list[Finished]:
    """Give each stage as it was computed last, in the order of that.

    Examples
    --------
    >>> old = Finished("flow", "all 2 frames", "2026-01-01T00:00:00+00:00", 3.0, 10)
    >>> new = Finished("flow", "1 of 3 frames", "2026-02-01T00:00:00+00:00", 1.0, 5)
    >>> [stage.work for stage in latest_stages([old, new])]
    ['1 of 3 frames']
    """
    latest: dict[str, Finished] = {}
    for stage in sorted(stages, key=lambda stage: stage.started):
        latest.pop(stage.stage, None)
        latest[stage.stage] = stage
    return list(latest.values())


def _inputs(inputs: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for what, file in inputs.items():
        name = PurePosixPath(str(file.get("path", ""))).name
        size = f"{file['size']:,}" if "size" in file else ""
        yield what.removesuffix("T00:00:00"), name, size, str(file.get("sha256", ""))


def _settings(settings: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    model = JOBS.get(str(settings.get("pipeline")))
    yield from _rows(settings, model)


def _rows(
    settings: Mapping[str, Any], model: type[BaseModel] | None, *above: str
) -> Iterator[tuple[str, ...]]:
    for key, value in settings.items():
        field = model.model_fields.get(key) if model else None
        table = table_of(field) if field else None
        if isinstance(value, Mapping):
            yield from _rows(value, table, *above, key)
        elif value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            meaning = (field.description or "") if field else ""
            yield ".".join((*above, key)), shown, meaning.replace("``", "")


def _made_with(record: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    yield from record.get("versions", {}).items()
    yield from record.get("machine", {}).items()


def _moment(iso: str) -> str:
    return iso[:19].replace("T", " ")
