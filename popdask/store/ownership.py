"""Which results belong to which stages, as their records tell.

A record names what was written with it: arrays by ``checksums``, files by ``sha256`` and groups by
``groups``. It belongs to the stage of its own name, or to the one that it names as ``of``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

#: Records beside a stage's that do not name it in stores of earlier versions.
_BESIDE = {"zones": "census", "map": "groups"}

_RESULTS = ("checksums", "sha256", "groups")

#: What the first stage of a job puts down of the whole job.
_OF_THE_JOB = ("job", "pipeline", "files")

Records = Mapping[str, Mapping[str, Any]]


def orphans(records: Records, stages: Collection[str]) -> tuple[str, ...]:
    """List the records of results that belong to none of some stages.

    A record without results, such as that of exports, is none of them: it tells which files outside
    the store were written, whether or not they are written still.

    Parameters
    ----------
    records
        Records by name.
    stages
        The stages that there are.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> zones = {"sha256": {"zones.parquet": "5e88"}, "of": "census"}
    >>> records = {"census": {"checksums": {"2020": {"people": "77ef"}}}, "zones": zones}
    >>> orphans(records | {"export": {"written": ["zones.parquet"]}}, ["estimate"])
    ('census', 'zones')
    >>> orphans(records, ["estimate", "census"])
    ()
    """
    return tuple(
        name
        for name, record in records.items()
        if record.get("of", _BESIDE.get(name, name)) not in stages
        and any(record.get(key) for key in _RESULTS)
    )


def without_orphans(records: Records, stages: Sequence[str]) -> dict[str, Any]:
    """Drop the records of results that belong to none of some stages.

    Parameters
    ----------
    records
        Records by name.
    stages
        The stages that there are, in order; the first of them that has a record takes over what a
        dropped one tells of the whole job.

    Returns
    -------
    dict
    """
    gone = orphans(records, stages)
    kept: dict[str, Any] = {name: record for name, record in records.items() if name not in gone}
    told = {k: v for name in gone for k, v in records[name].items() if k in _OF_THE_JOB}
    first = next((name for name in stages if name in kept), None)
    if told and first and not any("job" in record for record in kept.values()):
        kept[first] = {**kept[first], **told}
    return kept


def arrays_of(records: Iterable[Mapping[str, Any]]) -> set[str]:
    """Name the arrays that some records tell of."""
    frames = (frame for record in records for frame in record.get("checksums", {}).values())
    return {name for frame in frames for name in frame}


def named_in(records: Iterable[Mapping[str, Any]], key: str) -> set[str]:
    """Name the files (``"sha256"``) or groups (``"groups"``) that some records tell of."""
    return {name for record in records for name in record.get(key, {})}


def outside(records: Records) -> dict[str, Any]:
    """Reduce records to the files outside the store that they tell of: the next run needs those."""
    return {
        name: {"written": record["written"]}
        for name, record in records.items()
        if "written" in record
    }
