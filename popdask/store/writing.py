"""Frames of lazy arrays, computed, stored and summed up by the workers.

A chunk is stored and its checksum taken by one task, where the chunk is. The checksum is thus that
of what was computed, not of what was stored, and tells later whether the two are the same.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

import dask
import dask.array as da
import icechunk
import numpy as np
import xarray as xr
import zarr
from dask.array.optimization import optimize

from popdask.store.checksums import block_checksum, join_checksums


def store_frames(
    session: icechunk.Session, arrays: xr.Dataset, frames: Sequence[int]
) -> list[dict[str, str]]:
    """Compute some frames of arrays and store them, in one Dask graph.

    Parameters
    ----------
    session
        A writable session without changes, of a repository that has the arrays; it is left to be
        committed.
    arrays
        Variables on (time, y, x) over all frames, lazily.
    frames
        Positions of the frames to compute.

    Returns
    -------
    list of {variable: checksum}
        For each of the frames, in ascending order.
    """
    parts, told = [], []
    for first, last in frame_runs(frames):
        root = zarr.open_group(session.fork().store, mode="r+")
        for names in _alike(arrays, root):
            sources, targets = [arrays[name].data for name in names], [root[n] for n in names]
            parts.append(_stored(sources, targets, first, last))
            told.append((names, first))
    stores: dict[int, Any] = {}
    checksums: dict[int, dict[str, str]] = {frame: {} for frame in sorted(frames)}
    for (names, first), blocks in zip(told, _computed(parts), strict=True):
        for frame, chunks in enumerate(blocks, first):
            stores |= {id(store): store for store, _ in chunks.flat}
            sums = zip(*(parts for _, parts in chunks.flat), strict=True)
            checksums[frame] |= dict(zip(names, map(join_checksums, sums), strict=True))
    session.merge(*(store.session for store in stores.values()))
    return list(checksums.values())


def frame_runs(frames: Sequence[int]) -> list[tuple[int, int]]:
    """Group positions into runs without gaps, as (first, last).

    Examples
    --------
    >>> frame_runs([0, 1, 2, 5, 7, 8])
    [(0, 2), (5, 5), (7, 8)]
    """
    groups = itertools.groupby(enumerate(sorted(frames)), key=lambda item: item[1] - item[0])
    runs = [[frame for _, frame in group] for _, group in groups]
    return [(run[0], run[-1]) for run in runs]


def _alike(arrays: xr.Dataset, root: zarr.Group) -> list[list[str]]:
    """Group the variables that are stored in the same chunks: one task stores a chunk of all."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in map(str, arrays.data_vars):
        target: Any = root[name]
        groups.setdefault(target.chunks, []).append(name)
    return list(groups.values())


def _computed(parts: list[da.Array]) -> tuple[Any, ...]:
    """Compute, on the workers that the layers ask for, where they do.

    Dask's fusion of tasks forgets what a layer asks for, so such graphs are optimized without it;
    and here, because a scheduler elsewhere would optimize them by its own settings.
    """
    layers = (layer for array in parts for layer in array.dask.layers.values())
    if not any(layer.annotations for layer in layers):
        return dask.compute(*parts)
    with dask.config.set({"optimization.fuse.active": False}):
        parts = [_optimized(array) for array in parts]
    return dask.compute(*parts, optimize_graph=False)


def _optimized(array: da.Array) -> da.Array:
    graph = optimize(array.__dask_graph__(), array.__dask_keys__())
    return da.Array(graph, array.name, array.chunks, meta=array._meta)


def _stored(sources: list[Any], targets: list[Any], first: int, last: int) -> da.Array:
    """Lazily store frames first … last, a task per chunk: (store, checksums) of each."""
    chunks = targets[0].chunks
    frames = [source[first : last + 1].rechunk(chunks) for source in sources]
    return da.map_blocks(
        partial(_store_chunks, targets=targets, first=first),
        *frames,
        name=f"store-{'-'.join(target.basename for target in targets)}-{uuid.uuid4().hex}",
        dtype=object,
        chunks=tuple((1,) * len(sizes) for sizes in frames[0].chunks),
        meta=np.empty((0, 0, 0), object),
    )


def _store_chunks(
    *chunks: np.ndarray, targets: list[Any], first: int, block_id: tuple[int, int, int]
) -> np.ndarray:
    frame, sums = first + block_id[0], []
    for chunk, target in zip(chunks, targets, strict=True):
        row, column = block_id[1] * target.chunks[1], block_id[2] * target.chunks[2]
        rows, columns = slice(row, row + chunk.shape[1]), slice(column, column + chunk.shape[2])
        target[frame, rows, columns] = chunk[0]
        sums.append(block_checksum(chunk[0], (row, column), target.shape[2]))
    told = np.empty((1, 1, 1), object)
    told[0, 0, 0] = (targets[0].store, sums)  # one object for all that a process stores
    return told
