"""Datasets of other dimensions than the frames', such as cells: a group of the repository each.

Like frames, a chunk is stored and hashed by one task, where it is, so that the checksum is that of
what was computed.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import dask
import dask.array as da
import icechunk
import numpy as np
import xarray as xr
import zarr


def lay_out_group(session: icechunk.Session, name: str, dataset: xr.Dataset) -> None:
    """Replace a group by one with room for a dataset: what is not lazy of it is written.

    Parameters
    ----------
    session
        A writable session, to be committed by the caller.
    name
        Name of the group.
    dataset
        Variables on NumPy, or on Dask in chunks that are equal but for the last.
    """
    root = zarr.open_group(session.store, mode="a")
    if name in root:
        del root[name]
    dataset.to_zarr(session.store, group=name, mode="w", compute=False, consolidated=False)


def store_group(session: icechunk.Session, name: str, dataset: xr.Dataset) -> str:
    """Compute what is lazy of a dataset and store it, in one Dask graph.

    Parameters
    ----------
    session
        A writable session without changes, of a repository that has room for the dataset; it is
        left to be committed.
    name
        Name of the group.
    dataset
        The dataset.

    Returns
    -------
    str
        The checksum of the group: SHA-256 of the SHA-256 of each chunk of each variable.
    """
    lazy = {str(key): array for key, array in dataset.variables.items() if _is_lazy(array)}
    root = zarr.open_group(session.fork().store, path=name, mode="r+")
    (told,) = dask.compute([_stored(array.data, root[key]) for key, array in lazy.items()])
    forks = {id(fork): fork for blocks in told for fork, _ in blocks.flat}
    session.merge(*forks.values())
    sums = dict(zip(lazy, ([sha for _, sha in blocks.flat] for blocks in told), strict=True))
    stored = zarr.open_group(session.store, path=name, mode="r")
    return _joined(
        (key, sums[key] if key in sums else _chunk_sums(array)) for key, array in _arrays(stored)
    )


def group_checksum(store: Any, name: str) -> str:
    """Checksum of a group as it is stored.

    Raises
    ------
    KeyError
        If there is no such group.
    """
    root = zarr.open_group(store, mode="r")
    return _joined((key, _chunk_sums(array)) for key, array in _arrays(root[name]))


def _is_lazy(array: xr.Variable) -> bool:
    return isinstance(array.data, da.Array)


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
    told = np.empty((1,) * chunk.ndim, object)
    told[(0,) * chunk.ndim] = (target.store.session, _sum(chunk))
    return told
