"""What a repository holds: checksums, files, groups.

A frame's checksum is the sum, modulo 2^64, of a 64-bit hash of every cell's position and bits. A
sum does not depend on its order, so neither does the checksum on the chunks; each chunk is hashed
where it is. Cells without anything (NaN, or −1 in integers) add nothing. Damage goes unnoticed with
a probability of 2^-64; it is no protection against forgery, as SHA-256 of files would be.

The hash is the finalizer of splitmix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom
number generators").

A file is an array of bytes in the group ``files``, a record an attribute of ``provenance``;
datasets of other dimensions than the frames', such as cells, are a group each. Like frames, a chunk
is stored and hashed by one task, where it is, so that the checksum is that of what was computed.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import dask
import icechunk
import numpy as np
import zarr
from icechunk import IcechunkError

from popdask._numba_cache import compiled
from popdask.errors import InputError

if TYPE_CHECKING:  # a command that reads the history loads none of them
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


def root_group(store: Any) -> zarr.Group:
    """Open the group of the arrays, to read and write."""
    return zarr.open_group(store, mode="a")


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
    seconds: Any = zarr.open_group(session.store, mode="r")["time"]
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
    group = _subgroup(store, "files")
    if group is None or name not in group:
        raise NoResultError.of("file", name, file_names(store))
    array: Any = group[name]
    return bytes(np.asarray(array[:]).tobytes())


def file_names(store: Any) -> list[str]:
    """List the models and tables, without reading them."""
    group = _subgroup(store, "files")
    return [] if group is None else sorted(group.array_keys())


def file_problem(store: Any, name: str, sha256: str) -> str | None:
    """Say what is wrong with a file of which the checksum is known; None if nothing is."""
    try:
        found = file_checksum(read_file(store, name))
    except KeyError:
        return "is not there"
    except READ_ERRORS as error:
        return f"cannot be read: {str(error).splitlines()[0].strip()}"
    if found == sha256:
        return None
    return f"is not what was computed: its SHA-256 is {found[:16]}…, {sha256[:16]}… was recorded"


def write_files(store: Any, files: Mapping[str, bytes], remove: Iterable[str] = ()) -> None:
    """Write some files, and take others away."""
    group = root_group(store).require_group("files")
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
    root_group(store).require_group("provenance").attrs.put(dict(records))


def _subgroup(store: Any, name: str) -> zarr.Group | None:
    try:
        return zarr.open_group(store, path=name, mode="r")
    except zarr.errors.GroupNotFoundError:
        return None


def lay_out_group(session: icechunk.Session, name: str, dataset: xr.Dataset) -> None:
    """Replace a group by one with room for a dataset: what is not lazy of it is written."""
    root = zarr.open_group(session.store, mode="a")
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
    root = zarr.open_group(session.fork().store, path=name, mode="r+")
    (receipts,) = dask.compute([_stored(array.data, root[key]) for key, array in lazy.items()])
    forks = {id(fork): fork for blocks in receipts for fork, _ in blocks.flat}
    session.merge(*forks.values())
    sums = dict(zip(lazy, ([sha for _, sha in blocks.flat] for blocks in receipts), strict=True))
    stored = zarr.open_group(session.store, path=name, mode="r")
    return _joined(
        (key, sums[key] if key in sums else _chunk_sums(array)) for key, array in _arrays(stored)
    )


def group_checksum(store: Any, name: str) -> str:
    """Checksum of a group as it is stored."""
    root = zarr.open_group(store, mode="r")
    return _joined((key, _chunk_sums(array)) for key, array in _arrays(root[name]))


def group_problem(store: Any, name: str, checksum: str) -> str | None:
    """Say what is wrong with a group of which the checksum is known; None if nothing is."""
    try:
        found = group_checksum(store, name)
    except KeyError:
        return "is not there"
    except READ_ERRORS as error:
        return f"cannot be read: {str(error).splitlines()[0].strip()}"
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


def _sum(chunk: np.ndarray) -> str:
    text = chunk.dtype.kind in "OTU"
    return hashlib.sha256(repr(chunk.tolist()).encode() if text else chunk.tobytes()).hexdigest()


def _stored(source: da.Array, target: Any) -> da.Array:
    """Lazily store an array, a task per chunk: (session, checksum) of each."""
    blocks = source.rechunk(target.chunks)
    return blocks.map_blocks(
        partial(_store_chunk, target=target),
        name=f"store-{target.basename}-{uuid.uuid4().hex}",
        dtype=object,
        chunks=tuple((1,) * len(sizes) for sizes in blocks.chunks),
        meta=np.empty((0,) * blocks.ndim, object),
    )


def _store_chunk(chunk: np.ndarray, *, target: Any, block_id: tuple[int, ...]) -> np.ndarray:
    corner = [i * step for i, step in zip(block_id, target.chunks, strict=True)]
    ends = zip(corner, chunk.shape, strict=True)
    target[tuple(slice(first, first + size) for first, size in ends)] = chunk
    receipt = np.empty((1,) * chunk.ndim, object)
    receipt[(0,) * chunk.ndim] = (target.store.session, _sum(chunk))
    return receipt
