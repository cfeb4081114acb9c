"""What a repository holds: checksums, files, groups and records; its runs and commits.

A frame's checksum is the sum, modulo 2^64, of a 64-bit hash of every cell's position and bits. A
sum does not depend on its order, so neither does the checksum on the chunks; each chunk is hashed
where it is. Cells without anything (NaN, or −1 in integers) add nothing. Damage goes unnoticed with
a probability of 2^-64; it is no protection against forgery, as SHA-256 of files would be.

The hash is the finalizer of splitmix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom
number generators").

A file is an array of bytes in the group ``files``, a record an attribute of ``provenance``;
datasets of other dimensions than the frames', such as cells, are a group each. Like frames, a chunk
is stored and hashed by one task, where it is, so that the checksum is that of what was computed.

A record names what was written with it: arrays by ``checksums``, files by ``sha256`` and groups by
``groups``. It belongs to the stage of its own name, or to the one that it names as ``of``.

Changes of the history are safe where answers of the server get lost: a server may do what a request
asks, and the answer may be lost. Icechunk then asks again and is told that the branch has moved, or
that the tag is there: by whom, it cannot know. A region has one writer at a time, so here what was
done is compared with what was wanted.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import logging
import uuid
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import dask
import icechunk
import numpy as np
import zarr
from icechunk import ConflictError, IcechunkError, Repository
from zarr.core.sync import sync

from popdask._numba_cache import compiled
from popdask.errors import InputError

if TYPE_CHECKING:
    import dask.array as da
    import pandas as pd
    import xarray as xr

#: Groups that are no result: the files lie in one, the records on the other.
OWN_GROUPS = ("files", "provenance")
#: The file about the run that a state was published by.
RUN_FILE = "run.json"
#: What reading a damaged or lost chunk may end in.
READ_ERRORS = (IcechunkError, OSError, RuntimeError, ValueError)
#: In the chunks of the store, on Dask.
_STORED: Mapping[str, int] = MappingProxyType({})

#: Where a record names what was written with it: arrays, files, groups.
_RESULTS = ("checksums", "sha256", "groups")
#: What the first stage of a job puts down of the whole job.
_OF_THE_JOB = ("job", "pipeline", "files")
#: What a record says of files outside the store: those written, and names taken to write to.
_OUTSIDE = ("written", "writing")
Records = Mapping[str, Mapping[str, Any]]
#: Of a chunk, by where its corner lies in an array of some shape.
Checksum = Callable[[np.ndarray, Sequence[int], tuple[int, ...]], Any]
TIME_ENCODING = {"units": "seconds since 1970-01-01", "dtype": "int64"}
# A coordinate is missing nowhere, and CF wants it to say so.
_ENCODING = {"time": TIME_ENCODING, "y": {"_FillValue": None}, "x": {"_FillValue": None}}
#: The branch that readers see, and the branch of the run under way.
MAIN, WORK = "main", "work"
_log = logging.getLogger(__name__)


@compiled
def _sum_hashes(
    values: np.ndarray, bits: np.ndarray, nothing: float, first: int, width: int
) -> np.uint64:
    """Add up the hashes of a block whose first cell has the position ``first`` in its frame."""

    def mix(word: np.uint64) -> np.uint64:
        word ^= word >> np.uint64(30)
        word *= np.uint64(0xBF58476D1CE4E5B9)
        word ^= word >> np.uint64(27)
        word *= np.uint64(0x94D049BB133111EB)
        return word ^ (word >> np.uint64(31))

    total = np.uint64(0)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            value = values[row, column]
            if value == nothing or value != value:
                continue
            position = np.uint64(first + row * width + column + 1)
            key = mix(position * np.uint64(0x9E3779B97F4A7C15))
            total += mix(key ^ np.uint64(bits[row, column]))
    return total


def block_checksum(block: np.ndarray, corner: tuple[int, int], width: int) -> np.uint64:
    """Checksum of one block of a frame."""
    block = np.ascontiguousarray(block)
    nothing = np.nan if block.dtype.kind == "f" else -1.0
    bits = block.view(f"u{block.dtype.itemsize}")
    return np.uint64(_sum_hashes(block, bits, nothing, corner[0] * width + corner[1], width))


def stored_checksum(array: zarr.Array, frame: int) -> str:
    """Checksum of one frame of a stored array, read chunk by chunk.

    Parameters
    ----------
    array : zarr.Array of float or signed int, (time, y, x)
        Any chunks.
    frame
        Position along time.

    Returns
    -------
    str
        16 hexadecimal digits.

    Examples
    --------
    >>> import numpy as np
    >>> import zarr
    >>> from popdask.store import stored_checksum
    >>> frames = np.arange(24.0).reshape(2, 3, 4)
    >>> whole = zarr.create_array({}, data=frames, chunks=(1, 3, 4))
    >>> parts = zarr.create_array({}, data=frames, chunks=(1, 2, 3))
    >>> stored_checksum(whole, 1) == stored_checksum(parts, 1)
    True
    >>> stored_checksum(whole, 0) == stored_checksum(whole, 1)
    False
    """
    _, height, width = array.shape
    _, rows, columns = array.chunks
    corners = itertools.product(range(0, height, rows), range(0, width, columns))
    parts = [
        block_checksum(np.asarray(array[frame, y : y + rows, x : x + columns]), (y, x), width)
        for y, x in corners
    ]
    return join_checksums(parts)


def join_checksums(parts: Iterable[np.uint64]) -> str:
    """Add up the checksums of a frame's blocks, as 16 hexadecimal digits."""
    return f"{sum(map(int, parts)) % 2**64:016x}"


def file_checksum(content: bytes) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Examples
    --------
    >>> file_checksum(b"people")[:8]
    'c9022680'
    """
    return hashlib.sha256(content).hexdigest()


class NoResultError(InputError, KeyError):
    """A store has no result of that name; the message says which it has.

    Examples
    --------
    >>> raise NoResultError.of("table", "link", ["links"])
    Traceback (most recent call last):
    popdask.store.content.NoResultError: the store has no table 'link'; expected one of these: links
    """

    __str__ = Exception.__str__  # a KeyError's puts the sentence into quotes

    @classmethod
    def of(cls, kind: str, name: str, held: Iterable[str]) -> NoResultError:
        """Make the error for a name, and those that a store has of its kind.

        Examples
        --------
        >>> print(NoResultError.of("table", "link", ["tracks", "links"]))
        the store has no table 'link'; expected one of these: links, tracks
        """
        names = ", ".join(sorted(held))
        expected = f"expected one of these: {names}" if names else "it has none of that kind"
        return cls(f"the store has no {kind} {name!r}; {expected}")


def table_bytes(frame: pd.DataFrame) -> bytes:
    """Write a table, with or without geometry, as the bytes of a (Geo)Parquet file.

    Examples
    --------
    >>> import pandas as pd
    >>> table_bytes(pd.DataFrame({"people": [3]}))[:4]
    b'PAR1'
    """
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def read_table(content: bytes, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table, or some of its columns, from the bytes of a Parquet file.

    Parameters
    ----------
    content
        The file.
    columns
        What to read, without geometry; None for the whole table.

    Returns
    -------
    DataFrame
        A GeoDataFrame where the whole table has geometry.

    Examples
    --------
    >>> import pandas as pd
    >>> read_table(table_bytes(pd.DataFrame({"people": [3]})))["people"].tolist()
    [3]
    """
    import pyarrow.parquet

    if columns is not None:  # pandas would load all that reads from folders of files, too
        return pyarrow.parquet.ParquetFile(io.BytesIO(content)).read(list(columns)).to_pandas()
    import geopandas
    import pandas as pd

    if b"geo" in (pyarrow.parquet.read_schema(io.BytesIO(content)).metadata or {}):
        return geopandas.read_parquet(io.BytesIO(content))
    return pd.read_parquet(io.BytesIO(content))


def root_group(store: Any, mode: Literal["r", "r+", "a"] = "a", path: str = "") -> zarr.Group:
    """Open the group of the arrays, by default to read and write, or one within it."""
    # Where no format is given, each opening looks for the files of version 2, too.
    return zarr.open_group(store, mode=mode, path=path, zarr_format=3)


def open_arrays(
    session: icechunk.Session,
    *,
    chunks: Mapping[str, int] | None = _STORED,
    mask_and_scale: bool = False,
) -> xr.Dataset:
    """Open the arrays of a session, lazily, in their chunks; labels stay whole numbers."""
    import xarray as xr

    from popdask.io.conventions import in_own_units, is_grid_attribute  # registers Dataset.rio

    opened = xr.open_zarr(
        session.store,
        consolidated=False,
        zarr_format=3,
        chunks=None if chunks is None else dict(chunks),
        mask_and_scale=mask_and_scale,
    )
    for variable in opened.variables.values():
        variable.attrs.pop("_FillValue", None)  # which would say that they are masked yet to be
        variable.attrs = in_own_units(variable.attrs)
    opened.attrs = {key: said for key, said in opened.attrs.items() if not is_grid_attribute(key)}
    return opened


def stored_times(session: icechunk.Session) -> list[str]:
    """ISO times of the frames of a session."""
    seconds: Any = root_group(session.store, "r")["time"]
    return [str(time) for time in np.asarray(seconds[:]).astype("datetime64[s]")]


def open_group(
    session: icechunk.Session, name: str, *, chunks: Mapping[str, int] | None = _STORED
) -> xr.Dataset:
    """Open a group of a session, lazily, in its chunks."""
    import xarray as xr

    root = _subgroup(session.store, "")
    held = set() if root is None else set(root.group_keys()).difference(OWN_GROUPS)
    if name not in held:
        raise NoResultError.of("group", name, held)
    return xr.open_zarr(
        session.store,
        group=name,
        consolidated=False,
        zarr_format=3,
        chunks=None if chunks is None else dict(chunks),
        decode_coords="all",
    )


def drop_results(
    store: Any, arrays: Container[str], files: Container[str], groups: Container[str]
) -> list[str]:
    """Take away the frames' arrays, the files and the groups that are not among those to keep."""
    root = root_group(store)
    own = root.require_group("files")
    old = [name for name, array in root.arrays() if array.ndim == 3 and name not in arrays]
    old += [name for name in root.group_keys() if name not in groups and name not in OWN_GROUPS]
    old_files = [name for name in own.array_keys() if name not in files]
    for name in old:
        del root[name]
    for name in old_files:
        del own[name]
    return sorted(old + old_files)


def is_empty(store: Any) -> bool:
    """Return whether nothing was ever written."""
    return _subgroup(store, "") is None


def read_files(store: Any) -> dict[str, bytes]:
    """Read all models and tables, each as the bytes of its file."""
    group = _subgroup(store, "files")
    if group is None:
        return {}
    return {name: np.asarray(array[:]).tobytes() for name, array in group.arrays()}


def read_file(store: Any, name: str) -> bytes:
    """Read one model or table, as the bytes of its file."""
    try:
        array: Any = zarr.open_array(store, path=f"files/{name}", mode="r", zarr_format=3)
    except FileNotFoundError:
        raise NoResultError.of("file", name, file_names(store)) from None
    return bytes(np.asarray(array[:]).tobytes())


def file_names(store: Any) -> list[str]:
    """List the models and tables, without reading them."""
    group = _subgroup(store, "files")
    return [] if group is None else sorted(group.array_keys())


def reason_of(error: Exception) -> str:
    """The root of an error of Icechunk's: it stands last, behind an arrow, or first."""
    text = str(error).strip() or type(error).__name__
    root = text.rsplit("-> ", 1)[-1].split("\n\n")[0] if "-> " in text else text.splitlines()[0]
    return " ".join(root.split()).removeprefix("x ")


def file_problem(store: Any, name: str, sha256: str) -> str | None:
    """Say what is wrong with a file of which the checksum is known; None if nothing is."""
    try:
        found = file_checksum(read_file(store, name))
    except KeyError:
        return "is not there"
    except READ_ERRORS as error:
        return f"cannot be read: {reason_of(error)}"
    if found == sha256:
        return None
    return f"is not what was computed: its SHA-256 is {found[:16]}…, {sha256[:16]}… was recorded"


def write_files(store: Any, files: Mapping[str, bytes], remove: Iterable[str] = ()) -> None:
    """Write some files, and take others away."""
    group = root_group(store, path="files")
    for name in remove:
        del group[name]
    for name, content in files.items():
        data = np.frombuffer(content, np.uint8)
        group.create_array(name, data=data, chunks=(max(len(data), 1),), overwrite=True)


def read_records(store: Any) -> dict[str, Any]:
    """Read what each finished stage was made from, by the stage's name."""
    group = _subgroup(store, "provenance")
    return {} if group is None else dict(group.attrs)


def write_records(store: Any, records: Mapping[str, Any]) -> None:
    """Replace all records."""
    root_group(store, path="provenance").attrs.put(dict(records))


def _subgroup(store: Any, name: str) -> zarr.Group | None:
    try:
        return root_group(store, "r", name)
    except FileNotFoundError:
        return None


def lay_out_group(session: icechunk.Session, name: str, dataset: xr.Dataset) -> None:
    """Replace a group by one with room for a dataset: what is not lazy of it is written."""
    root = root_group(session.store)
    if name in root:
        del root[name]
    dataset.to_zarr(session.store, group=name, mode="w", compute=False, consolidated=False)


def store_group(session: icechunk.Session, name: str, dataset: xr.Dataset) -> str:
    """Compute what is lazy of a dataset and store it, in one Dask graph."""
    lazy = {
        str(key): array
        for key, array in dataset.variables.items()
        if dask.is_dask_collection(array.data)
    }
    root: Any = root_group(session.fork().store, "r+", name)
    parts = [store_blocks([array.data], [root[key]], _sum) for key, array in lazy.items()]
    (receipts,) = dask.compute(parts)
    merge_stores(session, receipts)
    sums = {
        key: [sha for _, (sha,) in blocks.flat] for key, blocks in zip(lazy, receipts, strict=True)
    }
    stored = root_group(session.store, "r", name)
    return _joined(
        (key, sums[key] if key in sums else _chunk_sums(array)) for key, array in _arrays(stored)
    )


def group_checksum(store: Any, name: str) -> str:
    """Checksum of a group as it is stored."""
    root = root_group(store, "r")
    return _joined((key, _chunk_sums(array)) for key, array in _arrays(root[name]))


def group_problem(store: Any, name: str, checksum: str) -> str | None:
    """Say what is wrong with a group of which the checksum is known; None if nothing is."""
    try:
        found = group_checksum(store, name)
    except KeyError:
        return "is not there"
    except READ_ERRORS as error:
        return f"cannot be read: {reason_of(error)}"
    return None if found == checksum else "is not what was computed"


def _arrays(group: Any) -> list[tuple[str, zarr.Array]]:
    return sorted(group.arrays())  # zarr lists in no fixed order


def _joined(sums: Any) -> str:
    digest = hashlib.sha256()
    for key, chunks in sums:
        digest.update("\n".join([key, *chunks, ""]).encode())
    return digest.hexdigest()


def _chunk_sums(array: zarr.Array) -> list[str]:
    return [_sum(np.asarray(array[place])) for place in _places(array)]


def _places(array: zarr.Array) -> Iterator[tuple[slice, ...]]:
    """Where the chunks of an array lie, in row-major order."""
    along = [range(0, size, step) for size, step in zip(array.shape, array.chunks, strict=True)]
    for corner in itertools.product(*along):
        ends = zip(corner, array.chunks, strict=True)
        yield tuple(slice(first, first + step) for first, step in ends)


def _sum(chunk: np.ndarray, *_: Any) -> str:
    text = chunk.dtype.kind in "OTU"
    return hashlib.sha256(repr(chunk.tolist()).encode() if text else chunk.tobytes()).hexdigest()


def store_blocks(
    sources: Sequence[da.Array], targets: Sequence[Any], checksum: Checksum, first: int = 0
) -> da.Array:
    """Lazily store arrays in the chunks of their targets, from a position of the first axis on."""
    import dask.array as da

    blocks = [source.rechunk(targets[0].chunks) for source in sources]
    return da.map_blocks(
        partial(_store_chunks, targets=targets, checksum=checksum, first=first),
        *blocks,
        name=f"store-{'-'.join(target.basename for target in targets)}-{uuid.uuid4().hex}",
        dtype=object,
        chunks=tuple((1,) * len(sizes) for sizes in blocks[0].chunks),
        meta=np.empty((0,) * blocks[0].ndim, object),
    )


def _store_chunks(
    *chunks: np.ndarray,
    targets: Sequence[Any],
    checksum: Checksum,
    first: int,
    block_id: tuple[int, ...],
) -> np.ndarray:
    """Store a chunk of each target: their store, one for all of a process, and the checksums."""
    corner = [i * step for i, step in zip(block_id, targets[0].chunks, strict=True)]
    if first:
        corner[0] += first
    place = tuple(slice(at, at + size) for at, size in zip(corner, chunks[0].shape, strict=True))
    for chunk, target in zip(chunks, targets, strict=True):
        target[place] = chunk
    sums = [checksum(chunk, corner, targets[0].shape) for chunk in chunks]
    receipt = np.empty((1,) * len(place), object)
    receipt[(0,) * len(place)] = (targets[0].store, sums)
    return receipt


def merge_stores(session: icechunk.Session, receipts: Iterable[np.ndarray]) -> None:
    """Bring home what workers have stored, by the receipts of :func:`store_blocks`."""
    stores = {id(store): store for blocks in receipts for store, _ in blocks.flat}
    session.merge(*(store.session for store in stores.values()))


def orphans(records: Records, stages: Collection[str]) -> tuple[str, ...]:
    """List the records of results that belong to none of some stages."""
    # A record without results, such as that of exports, is none of them: it says which files
    # outside the store were written, whether or not they are written still.
    return tuple(
        name
        for name, record in records.items()
        if record.get("of", name) not in stages and any(record.get(key) for key in _RESULTS)
    )


def without_orphans(records: Records, stages: Sequence[str]) -> dict[str, Any]:
    """Drop the records of results that belong to none of some stages."""
    gone = orphans(records, stages)
    kept: dict[str, Any] = {name: record for name, record in records.items() if name not in gone}
    of_the_job = {k: v for name in gone for k, v in records[name].items() if k in _OF_THE_JOB}
    first = next((name for name in stages if name in kept), None)
    if of_the_job and first and not any("job" in record for record in kept.values()):
        kept[first] = {**kept[first], **of_the_job}
    return kept


def recorded_frames(records: Records) -> dict[tuple[str, str], str]:
    """Checksum of each frame of each array as it was computed, by (time, name)."""
    return {
        (time, name): checksum
        for record in records.values()
        for time, frame in record.get("checksums", {}).items()
        for name, checksum in frame.items()
    }


def results_of(records: Records, key: str) -> dict[str, str]:
    """Checksums of files (``"sha256"``) or groups (``"groups"``) as they were computed."""
    return {
        name: checksum
        for record in records.values()
        for name, checksum in record.get(key, {}).items()
    }


def arrays_of(records: Records) -> set[str]:
    """Name the arrays that some records name."""
    return {name for _, name in recorded_frames(records)}


def outside(records: Records) -> dict[str, Any]:
    """Reduce records to the files outside the store that they name: the next run needs those."""
    files_by_stage = {
        name: {key: record[key] for key in _OUTSIDE if key in record}
        for name, record in records.items()
    }
    return {name: files for name, files in files_by_stage.items() if files}


def lay_out_anew(session: icechunk.Session, grid: xr.Dataset, records: Mapping[str, Any]) -> None:
    """Replace the arrays, and keep of all else what some records name."""
    import xarray as xr

    from popdask.io.conventions import grid_attributes, is_grid_attribute, with_axes

    drop_results(session.store, (), results_of(records, "sha256"), results_of(records, "groups"))
    root = root_group(session.store)
    for name in list(root.array_keys()):
        del root[name]
    # xarray drops what the group says of itself, and says anew which variables are coordinates.
    replaced = {"coordinates", *filter(is_grid_attribute, root.attrs)}
    said = {key: value for key, value in root.attrs.items() if key not in replaced}
    coordinates = xr.Dataset(coords=with_axes(grid).coords, attrs=said | grid_attributes(grid))
    coordinates.to_zarr(session.store, mode="a", consolidated=False, encoding=_ENCODING)
    write_records(session.store, records)


def same_place(grid: xr.Dataset, stored: xr.Dataset) -> bool:
    """Return whether two grids have the same cells, at whatever times."""
    import rioxarray  # noqa: F401  registers Dataset.rio; not above, as commands only look

    return (
        all(np.array_equal(grid[axis], stored[axis]) for axis in ("y", "x"))
        and grid.rio.crs == stored.rio.crs
    )


def lengthen(root: zarr.Group, seconds: np.ndarray) -> None:
    """Make every array as long as the times."""
    for _, array in root.arrays():
        metadata: Any = array.metadata  # version 3, which names dimensions
        if (metadata.dimension_names or ("",))[0] == "time":
            array.resize((len(seconds), *array.shape[1:]))
    root["time"][:] = seconds  # type: ignore[index]


def seconds_of(dataset: xr.Dataset) -> np.ndarray:
    """Times as they are stored."""
    return dataset["time"].values.astype("datetime64[s]").astype(np.int64)


def iso_times(dataset: xr.Dataset) -> list[str]:
    """Times as records have them."""
    return [str(time) for time in dataset["time"].values.astype("datetime64[s]")]


def nothing(array: xr.DataArray) -> float | int:
    """What stands in a cell without anything."""
    return np.nan if array.dtype.kind == "f" else -1


def record_of_frames(record: Mapping[str, Any], times: set[str]) -> dict[str, Any]:
    """The record of an array's stage, of some frames only."""
    some = {
        key: {time: value for time, value in record[key].items() if time in times}
        for key in ("frames", "checksums")
    }
    return {**record, **some}


@dataclass(frozen=True)
class Finished:
    """A stage that was computed and committed.

    Examples
    --------
    >>> Finished("flow", "1 of 18 frames", "2026-01-01T00:00:00+00:00", 3.0, 10).seconds
    3.0
    """

    stage: str
    """Its name."""
    work: str
    """What was computed, such as ``"1 of 18 frames"``."""
    started: str
    """ISO time, UTC."""
    seconds: float
    """How long it took."""
    bytes: int
    """How much data it added to the store, as they are stored."""
    amount: int = 0
    """How much there was to do, in a unit of the stage's own; 0 where that is not known."""
    of: str = ""
    """The stage that this is a part of, if it is not one itself."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Examples
    --------
    >>> stage = Finished("flow", "1 of 18 frames", "2026-01-01T00:00:00+00:00", 3.0, 10)
    >>> Run("run-1", stage.started, stage.started, (stage, stage), {}).seconds
    6.0
    """

    tag: str
    """Its tag in the repository."""
    started: str
    """ISO time, UTC, at which its first stage began."""
    finished: str
    """ISO time, UTC, at which it was published."""
    stages: tuple[Finished, ...]
    """What it computed; stages of runs that were stopped before are among them."""
    versions: Mapping[str, str]
    """Versions of popdask and of what it computes with."""
    note: str = ""
    """What else there is to say, such as that it is an earlier run again."""

    @property
    def seconds(self) -> float:
        """Time that its stages took."""
        return sum(stage.seconds for stage in self.stages)


def finished_stages(repository: icechunk.Repository) -> list[Finished]:
    """List the stages that were committed since the last finished run, in order."""
    if WORK not in repository.list_branches():
        return []
    published = repository.lookup_branch(MAIN)
    commits = itertools.takewhile(
        lambda commit: commit.id != published, _ancestry(repository, WORK)
    )
    finished_commits = [
        commit.metadata["finished"] for commit in commits if "finished" in commit.metadata
    ]
    return [Finished(**finished) for finished in reversed(finished_commits)]


def finished_runs(repository: icechunk.Repository) -> list[Run]:
    """List the finished runs, the newest first."""
    runs = (run_of(commit) for commit in _ancestry(repository, MAIN))
    return [run for run in runs if run is not None]


def _ancestry(repository: icechunk.Repository, branch: str) -> Iterator[icechunk.SnapshotInfo]:
    """The commits of a branch, the newest first, as far back as they can be read."""
    commits = repository.ancestry(branch=branch)
    while True:
        try:
            commit = next(commits, None)
        except IcechunkError as error:
            _log.warning("the history has a gap (%s): `popdask verify` says more", reason_of(error))
            return
        if commit is None:
            return
        yield commit


def first_commit(repository: icechunk.Repository) -> str:
    """The commit that a repository begins with, which holds nothing."""
    *_, first = repository.ancestry(branch=MAIN)
    return str(first.id)


def readable(repository: icechunk.Repository, tag: str) -> icechunk.SnapshotInfo | None:
    """Look up the commit that a tag names; None, with a warning, where it is lost."""
    try:
        return repository.lookup_snapshot(repository.lookup_tag(tag))
    except IcechunkError as error:
        _log.warning("the run %s is lost: it cannot be read (%s)", tag, reason_of(error))
        return None


def has_work(repository: icechunk.Repository) -> bool:
    """Return whether a run can go on from the branch ``work``; one that is lost is dropped."""
    if WORK not in repository.list_branches():
        return False
    try:
        repository.lookup_snapshot(repository.lookup_branch(WORK))
    except IcechunkError as error:
        _log.warning(
            "what a stopped run has finished is lost (%s): it begins anew", reason_of(error)
        )
        repository.delete_branch(WORK)
        return False
    return True


def run_of(commit: icechunk.SnapshotInfo) -> Run | None:
    """Return which run a commit has finished; None if it is another commit."""
    run = commit.metadata.get("run")
    return run and Run(**run | {"stages": tuple(Finished(**stage) for stage in run["stages"])})


def utc_now() -> str:
    """Return the time as ISO text, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def create(storage: icechunk.Storage) -> None:
    """Create a repository."""
    try:
        Repository.create(storage)
    except IcechunkError:
        if not Repository.exists(storage):
            raise


def commit(
    repository: Repository,
    session: icechunk.Session,
    message: str,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """Commit a session to its branch."""
    mark = uuid.uuid4().hex
    try:
        return str(session.commit(message, {**(metadata or {}), "commit": mark}))
    except ConflictError:
        tip = next(iter(repository.ancestry(branch=session.branch)))
        if tip.metadata.get("commit") != mark:
            raise
        return str(tip.id)


def bytes_written(session: icechunk.Session) -> int:
    """Add up the chunks that a session has written and not committed; no server is asked."""
    written = session.status().updated_chunks.items()
    keys = ["/".join([path[1:], "c", *map(str, i)]) for path, chunks in written for i in chunks]

    async def sizes() -> list[int]:
        return await asyncio.gather(*map(session.store.getsize, keys))

    return sum(sync(sizes()))


def create_branch(repository: Repository, branch: str, snapshot: str) -> None:
    """Create a branch at a snapshot."""
    _point(repository.create_branch, repository.lookup_branch, branch, snapshot)


def move_branch(repository: Repository, branch: str, snapshot: str) -> None:
    """Let a branch point to a snapshot."""
    _point(repository.reset_branch, repository.lookup_branch, branch, snapshot)


def create_tag(repository: Repository, tag: str, snapshot: str) -> None:
    """Name a snapshot, for good."""
    _point(repository.create_tag, repository.lookup_tag, tag, snapshot)


def delete_tag(repository: Repository, tag: str) -> None:
    """Take the name of a snapshot away."""
    try:
        repository.delete_tag(tag)
    except IcechunkError:
        if tag in repository.list_tags():
            raise


def _point(change: Any, lookup: Any, name: str, snapshot: str) -> None:
    """Let a branch or tag point to a snapshot; an error counts where it does not afterwards."""
    try:
        change(name, snapshot)
    except IcechunkError as error:
        try:
            done = lookup(name) == snapshot
        except IcechunkError:  # it is not there: the first error says why
            done = False
        if not done:
            raise error
