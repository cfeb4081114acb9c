"""The motion of people between frames: optical flow after Horn & Schunck (1981).

Where the population E moves with velocity (u, v), a cell's gain of people obeys the brightness
constraint E_x u + E_y v + E_t = 0; among the fields that nearly do, the smooth one is sought by the
iteration u ← ū − E_x (E_x ū + E_y v̄ + E_t) / (α² + E_x² + E_y²), and v likewise with E_y.

Every centering in time differences just two frames, and a warm start chains the frames. A block
borrows as many cells from its neighbours as it is iterated: wrong values creep in from its borders
by one cell per iteration and never reach its own cells. At the raster's border nothing is borrowed,
and there the replicated edge is the right one. With more than one scale, motion across many cells
is found before (:mod:`popdask.tracking._horn_schunck`); one scale is the first work's scheme.

Labels of the earlier frame are moved along a flow by reading, for each of its cells, the later
frame's label at the cell that it goes to: every cell counts once and none is lost, where writing
labels to where they go would leave holes and let some cover others. A block reads as many cells
around it as the flow is fast: the bound that a flow of several scales carries, or its fastest cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dask
import dask.array as da
import numba
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray import DataArray, Dataset

from popdask.blocks.overlap import add_overlap, as_dask, merge_thin_chunks, own_cells
from popdask.errors import InputError
from popdask.io.conventions import check_population
from popdask.tracking._horn_schunck import Scheme, bound, coarse_to_fine, iterate
from popdask.validate import check_flow


def _flow_block(
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    start: NDArray[np.float32] | None = None,
    *,
    scheme: Scheme,
    iterations: int,
    last_block: Sequence[int],
    block_id: Sequence[int],
) -> NDArray[np.float32]:
    """Flow (1, 2, y, x) of a block's own cells, from frames (1, 1, y, x) and a start with rims."""
    frames, first = (before[0, 0], after[0, 0]), None if start is None else start[0]
    core = own_cells(before.shape, scheme.rim, block_id, last_block)
    return iterate(*frames, first, scheme.differences, scheme.alpha, iterations, core)[None]


def _sweeps(
    before: da.Array, after: da.Array, start: Sequence[da.Array], chunks: tuple, scheme: Scheme
) -> da.Array:
    """Flow (time, 2, y, x) in chunks without rims, of frames (time, 1, y, x) that have them."""
    for done in range(0, scheme.iterations, scheme.rim):
        flow = da.map_blocks(
            _flow_block,
            before,
            after,
            *(add_overlap(flow, scheme.rim) for flow in start),
            scheme=scheme,
            iterations=min(scheme.rim, scheme.iterations - done),
            last_block=[len(sizes) - 1 for sizes in chunks],
            chunks=(before.chunks[0], (2,), *chunks),
            dtype=np.float32,
            meta=np.empty((0, 0, 0, 0), np.float32),
        )
        start = [flow]
    return flow


def _flow(
    frames: da.Array,
    scheme: Scheme,
    times: Sequence[int],
    warm_start: bool,
    first: da.Array | None = None,
) -> da.Array:
    """Return the flow (time, 2, y, x) of frames (time, y, x) at some times, in chunks of one."""
    # The flow (1, 2, y, x) of the first of them may be known already.
    frames = frames.rechunk({0: 1})
    if scheme.log:
        levels = {"dtype": np.float32, "meta": np.empty((0, 0, 0), np.float32)}
        missing = np.nan if scheme.scales == 1 else 0.0
        frames = da.map_blocks(_logarithms, frames, missing=missing, **levels)
    if scheme.scales > 1:
        return _far_flow(frames, scheme, times, first)
    frames = merge_thin_chunks(frames, scheme.rim)
    chunks = frames.chunks[1:]
    rimmed = add_overlap(frames, scheme.rim)[:, None]
    flows = [] if first is None else [first.rechunk((1, 2, *chunks))]
    rest = times[len(flows) :]
    for batch in [[time] for time in rest] if warm_start else [rest] if len(rest) else []:
        before, after = (rimmed.blocks[pick] for pick in _pair(scheme, batch, len(frames)))
        start = flows[-1:] if warm_start else []
        flows.append(_sweeps(before, after, start, chunks, scheme))
    return da.concatenate(flows)


def _pair(scheme: Scheme, times: Sequence[int], frames: int) -> NDArray[np.int64]:
    """Number the earlier and the later frame of every time; the first and last are repeated."""
    return np.clip(np.array(scheme.offsets)[:, None] + times, 0, frames - 1)


def _far_flow(
    frames: da.Array, scheme: Scheme, times: Sequence[int], first: da.Array | None
) -> da.Array:
    """Return the flow (time, 2, y, x) coarse to fine, each time by itself."""
    flows = [] if first is None else [first]
    if len(rest := times[len(flows) :]):
        before, after = (frames.blocks[pick] for pick in _pair(scheme, rest, len(frames)))
        flows.append(coarse_to_fine(before, after, scheme))
    return da.concatenate([flow.rechunk((1, 2, *flows[-1].chunks[2:])) for flow in flows])


@numba.njit(cache=True, nogil=True)
def _log_cells(people: NDArray, levels: NDArray, missing: float) -> None:
    # Not NumPy's: the same cell gives the same bits wherever it lies in a block.
    for i in range(people.size):
        known = people[i] == people[i]
        levels[i] = np.log1p(max(np.float64(people[i]), 0.0)) if known else missing


def _logarithms(people: NDArray[np.floating], missing: float) -> NDArray[np.float32]:
    """Log(1 + people), and what no data is to be."""
    levels = np.empty(people.shape, np.float32)
    _log_cells(np.ascontiguousarray(people).reshape(-1), levels.reshape(-1), missing)
    return levels


def _picked(
    kernel: Callable[..., NDArray], flow: da.Array, dtype: type, **options: int
) -> da.Array:
    """Make (time, y, x) of the flow (time, 2, y, x), so that Dask fuses it with what follows."""
    meta: NDArray = np.empty((0, 0, 0), dtype)
    return da.blockwise(kernel, "tyx", flow, "tcyx", meta=meta, dtype=dtype, **options)


def _component(blocks: list[NDArray[np.float32]], i: int) -> NDArray[np.float32]:
    (flow,) = blocks
    return flow[:, i]


def _moving(blocks: list[NDArray[np.float32]]) -> NDArray[np.bool_]:
    (flow,) = blocks
    return (flow != 0).any(axis=1)


def _as_people(population: DataArray, timed: bool = False) -> DataArray:
    """Check the array; give floats (time, y, x), Dask-backed (NumPy becomes one chunk)."""
    population, dims = check_population("population", population, timed=timed), ("time", "y", "x")
    if set(population.dims) != set(dims):
        raise InputError(
            f"population has the sizes {dict(population.sizes)}, expected at least one cell along "
            f"each of {dims}; select or expand dimensions first"
        )
    population = population.transpose(*dims)
    if population.dtype.kind != "f":
        population = population.astype(np.float32)
    return population.copy(data=as_dask(population.data))


def _stacked(flow: Dataset, people: DataArray) -> da.Array:
    """Return a frame's u and v as one Dask array (1, 2, y, x)."""
    check_flow(flow)
    if dict(flow.sizes) != {axis: people.sizes[axis] for axis in ("y", "x")}:
        raise InputError(
            f"the first frame's flow has the sizes {dict(flow.sizes)}, expected those of the "
            f"population, {dict(people.sizes)}, without time"
        )
    layers = [da.asarray(flow[name].transpose("y", "x").data) for name in ("u", "v")]
    return da.stack(layers)[None]


def _as_dataset(flow: da.Array, like: DataArray, scheme: Scheme) -> Dataset:
    """Dress the flow (time, 2, y, x) with the chunks and coordinates of the population."""
    u, v = (_picked(_component, flow, np.float32, i=i).rechunk(like.chunks) for i in (0, 1))
    attrs = {"units": "cells per frame"}
    return Dataset(
        {
            "u": (like.dims, u, {"long_name": "motion of people along x, to the right", **attrs}),
            "v": (like.dims, v, {"long_name": "motion of people along y, down the rows", **attrs}),
        },
        coords=like.coords,
        attrs={"bound": bound(scheme.scales)} if scheme.scales > 1 else {},
    )


def optical_flow(
    population: DataArray,
    *,
    iterations: int | None = None,
    alpha: float | None = None,
    centering: tuple[int, int, int] = (0, 0, 0),
    warm_start: bool = True,
    scales: int = 1,
    log: bool = False,
    first: Dataset | None = None,
) -> Dataset:
    """Estimate the motion of people in every frame.

    Parameters
    ----------
    population : DataArray of float, (time, y, x)
        People per cell, NumPy or Dask. NaN (no data) is read as nobody, and with one scale as what
        the other of the two frames has there, so that nobody moves for a year that is missing.
    iterations : int, optional
        Updates of the whole field, at least 1. Each carries the motion one cell further into
        places where nothing changes, and makes a block borrow one more cell from its neighbours.
        By default 1, and 30 with more than one scale.
    alpha : float, optional
        Weight of smoothness, in people per cell (with `log`, in their logarithms), from 1e-9 to
        1e9: differences between cells that are small against it are taken for noise and hardly
        move anything. By default 10, and 2 with `log` and more than one scale.
    centering : tuple of three int, optional
        Where the differences along x, y and time are taken: 0 from the cell before to the cell
        after (step 2), +1 from the cell to the one after, -1 from the one before to the cell. With
        -1 in time a frame does not depend on later ones.
    warm_start : bool, optional
        Start a frame from the result of the frame before it, instead of from rest; with more than
        one scale every frame starts from its own.
    scales : int, optional
        1 is the scheme of the first work, which sees motions that are small against what moves.
        With more, whole cells are found before, coarse to fine, by matching squares of each frame
        with the other through a pyramid of so many scales, and the scheme adds what is left, at
        most a cell: 2 find motions of up to 7 cells between the two frames, 3 up to 15, 4 up to 31.
    log : bool, optional
        Look at log(1 + people), so that villages count beside towns.
    first : Dataset, optional
        `u` and `v` (y, x) of the first frame where they are known, from a longer cube: they are
        taken as they are, and the frames after go on from them.

    Returns
    -------
    Dataset
        `u` (to the right) and `v` (down the rows), float32 (time, y, x), cells per frame, lazy, in
        the chunks and with the coordinates of `population`; finite everywhere. With more than one
        scale its attribute `bound` is what no component exceeds, in cells.

    Raises
    ------
    InputError
        If a setting is out of its range, or `population` does not have these dimensions.

    Notes
    -----
    The scheme is that of B. K. P. Horn and B. G. Schunck, "Determining optical flow", Artificial
    Intelligence 17 (1981), with a choice of differences. Every axis is edge-replicated, time too,
    so that a cube of one frame is at rest. The result is the same to the bit in any chunks.

    Examples
    --------
    A hill of people that moves one cell to the right in each frame:

    >>> import numpy as np, xarray as xr
    >>> time, y, x = np.ogrid[:3, :32, :32]
    >>> people = 50 * np.exp(-((x - time - 15.0) ** 2 + (y - 16.0) ** 2) / 50)
    >>> years = {"time": np.arange("2000", "2003", dtype="datetime64[Y]").astype("datetime64[ns]")}
    >>> population = xr.DataArray(people.astype("float32"), years, ("time", "y", "x"))
    >>> flow = optical_flow(population, iterations=200, alpha=1.0)
    >>> bool(flow.u[1, 16, 12] > 0.9)
    True
    """
    scheme = Scheme.of(iterations, alpha, centering, scales, log)
    people = _as_people(population, timed=True)
    known = None if first is None else _stacked(first, people)
    flow = _flow(people.data, scheme, range(people.sizes["time"]), warm_start, known)
    return _as_dataset(flow, people, scheme)


def moving_cells(population: DataArray, *, alpha: float = 10.0, iterations: int = 1) -> DataArray:
    """Return in which cells people move from one frame to the next."""
    scheme = Scheme(iterations, float(alpha), (0, 0, 1))
    people = _as_people(population)
    earlier = people.isel(time=slice(-1))
    flow = _flow(people.data, scheme, range(len(earlier)), warm_start=False)
    moving = _picked(_moving, flow, np.bool_).rechunk(earlier.chunks)
    found = earlier.copy(data=moving).rename("moving")
    found.attrs = {"long_name": "whether people move until the next frame", "units": "1"}
    return found


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
