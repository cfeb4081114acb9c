"""What a flow says of two frames: which cell each cell goes to, and whether the way back agrees.

The labels of the earlier frame are moved by reading, for each of its cells, the later frame's label
at the cell that it goes to: every cell counts once and none is lost, where writing labels to where
they go would leave holes and let some cover others.

A block reads as many cells around it as the flow is fast: the bound that a flow of several scales
carries, or the fastest of its cells.
"""

from __future__ import annotations

import dask
import dask.array as da
import numba
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from popdask.blocks.overlap import add_overlap, merge_thin_chunks
from popdask.errors import InputError
from popdask.validate import check_flow

UNIT = 2**30  # cosines are counted in such parts, so that their sums are exact

Flow = tuple[da.Array, da.Array]
"""u and v (time, y, x)."""


def components(name: str, flow: xr.Dataset, like: da.Array) -> Flow:
    """Give u and v as Dask arrays (time, y, x) of the frames and cells of an array."""
    check_flow(flow)
    if dict(flow.sizes) != dict(zip(("time", "y", "x"), like.shape, strict=True)):
        raise InputError(
            f"{name} has the sizes {dict(flow.sizes)}; expected (time, y, x) of the frames "
            f"that it moves, {like.shape}; give what optical_flow makes of the same population"
        )
    u, v = (da.asarray(flow[part].transpose("time", "y", "x").data) for part in ("u", "v"))
    return u.rechunk({0: 1}), v.rechunk({0: 1})


def farthest(flow: xr.Dataset) -> int:
    """Return the cells that nobody moves beyond: the flow's own bound, or computed."""
    if "bound" in flow.attrs:
        return int(flow.attrs["bound"])
    most = max(map(float, dask.compute(abs(flow["u"]).max(), abs(flow["v"]).max())))
    if not np.isfinite(most):
        raise InputError("flow is not finite everywhere; expected cells per frame; fill its gaps")
    return int(np.ceil(most))


def ahead(labels: da.Array, flow: Flow, reach: int, fill: float = -1) -> da.Array:
    """Give, for each cell of the frames before, the label of the frame after where it goes."""
    rimmed, u, v = _with_surroundings(labels, flow, reach, fill=fill)
    meta = np.empty((0, 0, 0), labels.dtype)
    return da.map_blocks(_ahead_block, rimmed, u, v, reach=reach, dtype=labels.dtype, meta=meta,
                         chunks=u.chunks)  # fmt: skip


def agreement(flow: Flow, back: Flow, reach: int) -> da.Array:
    """Return the cosine between the flow of each cell and the later frame's where it goes."""
    there = da.stack(back, axis=1)
    rimmed, u, v = _with_surroundings(there, flow, reach, fill=0)
    meta = np.empty((0, 0, 0), np.int64)
    return da.map_blocks(_agreement_block, rimmed, u[:, None], v[:, None], reach=reach,
                         dtype=np.int64, meta=meta, drop_axis=1, chunks=u.chunks)  # fmt: skip


def _with_surroundings(
    there: da.Array, flow: Flow, reach: int, fill: float
) -> tuple[da.Array, da.Array, da.Array]:
    """Lay what is read under the flow that reads it, with as many cells around as that needs."""
    there = merge_thin_chunks(
        there.rechunk({0: 1, -2: flow[0].chunks[1], -1: flow[0].chunks[2]}), reach
    )
    u, v = (part.rechunk((1, *there.chunks[-2:])) for part in flow)
    return add_overlap(there, reach, fill=fill), u, v


@numba.njit(cache=True, nogil=True)
def _destination(u: float, v: float, reach: int) -> tuple[int, int]:
    """Rows and columns to the nearest cell that a cell goes to."""
    row, column = int(np.rint(v)), int(np.rint(u))
    return min(max(row, -reach), reach), min(max(column, -reach), reach)


@numba.njit(cache=True, nogil=True)
def _read_labels(labels: NDArray, u: NDArray, v: NDArray, reach: int, found: NDArray) -> None:
    for y in range(u.shape[0]):
        for x in range(u.shape[1]):
            row, column = _destination(u[y, x], v[y, x], reach)
            found[y, x] = labels[y + reach + row, x + reach + column]


def _ahead_block(labels: NDArray, u: NDArray, v: NDArray, *, reach: int) -> NDArray:
    """Read the labels (1, y, x) with their rims where the flow of a block goes."""
    found = np.empty(u.shape, labels.dtype)
    _read_labels(labels[0], u[0], v[0], reach, found[0])
    return found


@numba.njit(cache=True, nogil=True)
def _cosines(back: NDArray, u: NDArray, v: NDArray, reach: int, found: NDArray) -> None:
    for y in range(u.shape[0]):
        for x in range(u.shape[1]):
            row, column = _destination(u[y, x], v[y, x], reach)
            j, i = y + reach + row, x + reach + column
            a, b = np.float64(u[y, x]), np.float64(v[y, x])
            c, d = np.float64(back[0, j, i]), np.float64(back[1, j, i])
            length = np.sqrt((a * a + b * b) * (c * c + d * d))
            cosine = (a * c + b * d) / length if length > 0 else 0.0
            found[y, x] = np.int64(np.rint(cosine * UNIT))


def _agreement_block(back: NDArray, u: NDArray, v: NDArray, *, reach: int) -> NDArray[np.int64]:
    """Compare the flow of a block with the flow back (1, 2, y, x), which has rims."""
    found = np.empty(u.shape[2:], np.int64)
    _cosines(back[0], u[0, 0], v[0, 0], reach, found)
    return found[None]
