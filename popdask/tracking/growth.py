"""How people change where they are: movement and growth, and derivatives of flow and frames.

People who move with velocity v and are born or die at the rate s obey the balance ∂P/∂t = −∇·(Pv)
+ s. Here the people of every cell are carried to where the flow takes them; s is what the next
frame holds beyond what arrived and stayed.

The trick is to count people as whole numbers of 2⁻³² of a person: what leaves a cell is what
arrives elsewhere, to the last of them, in whatever order blocks are computed.

Speed, divergence and Laplacian are stencils of 3 × 3 cells on frames whose edges are replicated.
The divergence is by central differences, ∂u/∂x + ∂v/∂y; the Laplacian is the mean of the neighbours
less the cell, by the weights of Horn and Schunck's mean (1/6 beside, 1/12 at corners), times 3: the
factor that approximates ∂²/∂x² + ∂²/∂y².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dask.array as da
import numba
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from popdask.blocks.overlap import add_overlap, merge_thin_chunks, own_cells
from popdask.blocks.sums import LabelSums, from_fixed, sum_frames, tabulate, to_fixed
from popdask.errors import InputError
from popdask.io.conventions import check_population
from popdask.tracking.flow import components, farthest
from popdask.validate import check_array, check_flow, check_labels

UNIT = 2.0**32
_NAMES = {
    "moved_in": "people who moved in from other cells",
    "moved_out": "people who moved out to other cells",
    "grown": "people more than movement explains",
    "change": "people more than in the frame before",
}
PARTS = tuple(_NAMES)


def growth(
    population: xr.DataArray,
    flow: xr.Dataset,
    *,
    whole: bool = True,
    reach: int | None = None,
    labels: xr.DataArray | None = None,
) -> xr.Dataset:
    """Split the change between successive frames into movement and growth, cell by cell.

    Two rasters never show who moved: this is the movement that the flow says, and the least of
    those that fit as well. A town that empties while another fills is read as decline and growth
    where the flow sees no motion between them; migration is not in it.

    Parameters
    ----------
    population : DataArray of float, (time, y, x)
        People per cell, NaN = no data, from whom nobody moves out.
    flow : Dataset
        ``u``, ``v`` (time, y, x) from each frame to the next, in cells, as
        ``optical_flow(population, centering=(0, 0, 1), scales=3, log=True)`` gives it.
    whole : bool, optional
        Carry a cell's people together to the nearest cell, so that motions below half a cell,
        which are mostly noise, carry nobody. Otherwise they are shared among the four cells around
        where they arrive.
    reach : int, optional
        Cells that nobody moves beyond; faster ones are held there. By default the flow's own
        `bound`, and where it has none, the flow is computed once to find its fastest cell.
    labels : DataArray of int, (time, y, x), optional
        Settlements or communities (numbers ≥ 0, negative where there is none), one frame per frame
        but the first: who moves between two cells of one of them has neither moved in nor out.
        `grown` is the same as without them.

    Returns
    -------
    Dataset
        Of every frame but the last, float64 (time, y, x), lazy: `moved_in`, `moved_out` (of those,
        some beyond the raster), `grown` and `change`, in people, with change = moved_in −
        moved_out + grown; with `labels` that holds of their sums, not of their cells. The last two
        are NaN where either frame is. The coordinate `next` is the time of the later frame.

    Raises
    ------
    InputError
        If `population` does not have these dimensions or holds no counts of people, or the flow or
        the labels have other frames or cells.

    See Also
    --------
    growth_by_label : adds this up by settlement or community.

    Examples
    --------
    Ten people move one cell to the right, and a child is born:

    >>> people = xr.DataArray([[[10.0, 0.0, 0.0]], [[0.0, 11.0, 0.0]]], dims=("time", "y", "x"))
    >>> flow = xr.Dataset({"u": xr.ones_like(people), "v": xr.zeros_like(people)})
    >>> found = growth(people, flow)
    >>> found.moved_in.values, found.moved_out.values, found.grown.values
    (array([[[ 0., 10.,  0.]]]), array([[[10.,  0.,  0.]]]), array([[[0., 1., 0.]]]))
    """
    population = check_population("population", population, "time", "y", "x")
    people = population.transpose("time", "y", "x")
    cells = da.asarray(people.data).rechunk({0: 1}).astype(np.float64)
    u, v = components("flow", flow, cells)
    reach = farthest(flow) if reach is None else reach
    drawn = [] if labels is None else [_later_labels(labels, cells[1:])]
    parts = _moved([cells[:-1], u[:-1], v[:-1], *drawn], whole, reach + 1)
    before, after = (frames.rechunk(parts.chunks[:1] + parts.chunks[2:]) for frames in
                     (cells[:-1], cells[1:]))  # fmt: skip
    moved_in, moved_out, net = (parts[:, i] for i in range(3))
    change = after - before
    layers = moved_in, moved_out, change - net, change
    like = people.isel(time=slice(-1))
    chunks = like.chunks or change.chunks
    found = {
        name: (like.dims, layer.rechunk(chunks), {"long_name": _NAMES[name], "units": "people"})
        for name, layer in zip(PARTS, layers, strict=True)
    }
    later = {"next": ("time", people["time"].to_numpy()[1:])}
    return xr.Dataset(found, coords=like.coords).assign_coords(later)


def growth_by_label(parts: xr.Dataset, labels: xr.DataArray | None = None) -> pd.DataFrame:
    """Add up movement and growth by settlement or community, or over the whole raster.

    Eager: one pass over the cells, one call of :func:`dask.compute`. Cells without data in either
    frame are left out, so that change = moved_in − moved_out + grown. What moves within a label is
    in both `moved_in` and `moved_out`, unless `growth` was given the labels.

    Parameters
    ----------
    parts : Dataset
        What `growth` makes.
    labels : DataArray of int, (time, y, x), optional
        Numbers ≥ 0, negative where there is none, one frame per frame of `parts`. Those of the
        later frames say where people came, those of the earlier ones where they left.

    Returns
    -------
    pandas.DataFrame
        By time and label: ``time``, ``next``, ``label`` (where given), ``moved_in``,
        ``moved_out``, ``grown``, ``change`` (people; NaN where no cell has data in both frames) and
        ``explained``: 1 − Σ|grown| / Σ|change| over its cells, NaN where nothing changed.

    Raises
    ------
    InputError
        If the labels do not have the sizes of `parts`.

    Notes
    -----
    The result is identical under any chunking.

    Examples
    --------
    >>> people = xr.DataArray([[[10.0, 0.0, 5.0]], [[0.0, 10.0, 6.0]]], dims=("time", "y", "x"))
    >>> flow = xr.Dataset({"u": people.where(people == 10, 0) / 10, "v": xr.zeros_like(people)})
    >>> growth_by_label(growth(people, flow))[["moved_in", "moved_out", "grown", "explained"]]
       moved_in  moved_out  grown  explained
    0      10.0       10.0    1.0   0.952381
    """
    lazy = [da.asarray(parts[name].transpose("time", "y", "x").data) for name in PARTS]
    if labels is None:
        keys = da.zeros_like(lazy[0], dtype=np.int64)
    else:
        keys = _later_labels(labels, lazy[0])
    tables = sum_frames(_sum_block, keys, *lazy).compute() if len(keys) else []
    times = zip(parts["time"].to_numpy(), parts["next"].to_numpy(), strict=True)
    empty = _rows(LabelSums(np.zeros(0, np.int64), np.zeros((11, 0), np.int64)))
    rows = [_rows(table).assign(time=time, next=after)
            for table, (time, after) in zip(tables, times, strict=True)]  # fmt: skip
    found = pd.concat(rows or [empty.assign(time=[], next=[])])
    columns = ["time", "next", *(["label"] if labels is not None else []), *PARTS, "explained"]
    return found[columns].reset_index(drop=True)


def _later_labels(labels: xr.DataArray, cells: da.Array) -> da.Array:
    """Return the labels of the later frames as an array like the cells of the earlier ones."""
    check_labels("labels", labels)
    sizes = dict(zip(("time", "y", "x"), cells.shape, strict=True))
    if dict(labels.sizes) != sizes:
        raise InputError(
            f"labels have the sizes {dict(labels.sizes)}; expected those of the growth, {sizes}; "
            "select the later frames, as in labels.isel(time=slice(1, None))"
        )
    return da.asarray(labels.transpose("time", "y", "x").data)


def _moved(arrays: Sequence[da.Array], whole: bool, depth: int) -> da.Array:
    """Give who (time, 3, y, x) moves in and out, and in less out, whatever the labels."""
    if not len(arrays[0]):  # a single frame
        return da.zeros((0, 3, *arrays[0].shape[1:]), chunks=-1)
    cells = merge_thin_chunks(arrays[0], depth)
    aligned = [cells, *(array.rechunk(cells.chunks) for array in arrays[1:])]
    fills = (0, 0, 0, -1)
    rimmed = [
        add_overlap(array, depth, fill=fill) for array, fill in zip(aligned, fills, strict=False)
    ]
    return da.map_blocks(
        _moved_block,
        *(array[:, None] for array in rimmed),
        whole=whole,
        depth=depth,
        chunks=(cells.chunks[0], (3,), *cells.chunks[1:]),
        dtype=np.float64,
        meta=np.empty((0, 0, 0, 0)),
    )


def _moved_block(
    people: NDArray[np.float64], u: NDArray, v: NDArray, *labels: NDArray, whole: bool, depth: int
) -> NDArray[np.float64]:
    """Count who moves into and out of a block's own cells, from blocks (1, 1, y, x) with rims."""
    height, width = people.shape[2:]
    counts = np.zeros((3, height - 2 * depth, width - 2 * depth), np.int64)
    drawn = labels[0][0, 0].astype(np.int64) if labels else np.empty((0, 0), np.int64)
    _carry(people[0, 0], u[0, 0], v[0, 0], drawn, whole, depth, counts)
    return counts[None] / UNIT


@numba.njit(cache=True, nogil=True)
def _carry(
    people: NDArray,
    u: NDArray,
    v: NDArray,
    labels: NDArray,
    whole: bool,
    depth: int,
    counts: NDArray,
) -> None:
    """Add every cell's people to where they arrive, and to those who left it."""
    height, width = people.shape
    most = np.float64(depth - 1)
    for y in range(height):
        for x in range(width):
            if not people[y, x] > 0:
                continue
            here = int(np.rint(people[y, x] * UNIT))
            down = min(max(np.float64(v[y, x]), -most), most)
            right = min(max(np.float64(u[y, x]), -most), most)
            if whole:
                down, right = np.rint(down), np.rint(right)
            row, column = int(np.floor(down)), int(np.floor(right))
            lower, beyond = down - row, right - column
            rest = here
            for corner in range(4):
                j, i = corner // 2, corner % 2
                share = (lower if j else 1 - lower) * (beyond if i else 1 - beyond)
                part = rest if corner == 3 else int(np.rint(here * share))
                rest -= part
                down_to, right_to = y + row + j, x + column + i
                if row + j == 0 and column + i == 0:
                    continue
                _add(counts[2], y - depth, x - depth, -part)
                _add(counts[2], down_to - depth, right_to - depth, part)
                if _same(labels, y, x, down_to, right_to):
                    continue
                _add(counts[1], y - depth, x - depth, part)
                _add(counts[0], down_to - depth, right_to - depth, part)


@numba.njit(cache=True, nogil=True)
def _same(labels: NDArray, y: int, x: int, row: int, column: int) -> bool:
    """Return whether two cells of a block have one label; none has where there are no labels."""
    if not (0 <= row < labels.shape[0] and 0 <= column < labels.shape[1]):
        return False
    return labels[y, x] >= 0 and labels[y, x] == labels[row, column]


@numba.njit(cache=True, nogil=True)
def _add(counts: NDArray, y: int, x: int, part: int) -> None:
    """Add to a cell, where the block has it."""
    if 0 <= y < counts.shape[0] and 0 <= x < counts.shape[1]:
        counts[y, x] += part


def _sum_block(labels: NDArray, *parts: NDArray[np.float64]) -> LabelSums:
    """Tabulate a block's parts by label, and what they change apart from sign; two words each."""
    inside = labels >= 0
    moved_in, moved_out, grown, change = (part[inside] for part in parts)
    known = ~np.isnan(change)  # elsewhere nobody can say what became of them
    values = moved_in, moved_out, change, np.abs(grown), np.abs(change)
    columns = [word for value in values for word in to_fixed(np.where(known, value, 0))]
    return tabulate(labels[inside].astype(np.int64), [*columns, known.astype(np.int64)])


def _rows(table: LabelSums) -> pd.DataFrame:
    known = table.sums[10] > 0
    moved_in, moved_out, change = (table.sums[i : i + 2] for i in (0, 2, 4))
    # not that of the cells: of moves within a label, one end may be unknown
    words = moved_in, moved_out, change - moved_in + moved_out, change
    sums = {
        name: np.where(known, from_fixed(*pair), np.nan)
        for name, pair in zip(PARTS, words, strict=True)
    }
    left, changed = table.reals(6), table.reals(8)
    explained = np.full(len(changed), np.nan)
    np.divide(changed - left, changed, out=explained, where=changed > 0)
    return pd.DataFrame({"label": table.keys, **sums, "explained": explained})


Kernel = Callable[[NDArray, int], NDArray]


def speed(flow: xr.Dataset) -> xr.DataArray:
    """Give how fast people move, whatever the direction.

    Parameters
    ----------
    flow : Dataset
        ``u``, ``v`` (…, y, x), cells per frame.

    Returns
    -------
    DataArray of float, (…, y, x)
        √(u² + v²), cells per frame, lazy where the flow is.

    Raises
    ------
    InputError
        If `flow` has no u and v.

    Examples
    --------
    >>> flow = xr.Dataset({"u": ("x", [3.0]), "v": ("x", [-4.0])})
    >>> speed(flow).values
    array([5.])
    """
    check_flow(flow)
    found: xr.DataArray = xr.apply_ufunc(np.hypot, flow["u"], flow["v"], dask="allowed")
    return found.rename("speed").assign_attrs(long_name="speed of people", units="cells per frame")


def divergence(flow: xr.Dataset) -> xr.DataArray:
    """Give where the flow runs apart (positive) or together (negative).

    Parameters
    ----------
    flow : Dataset
        ``u`` (to the right) and ``v`` (down the rows) (…, y, x), cells per frame.

    Returns
    -------
    DataArray of float, (…, y, x)
        ∂u/∂x + ∂v/∂y by central differences, per frame, lazy; edges are replicated.

    Raises
    ------
    InputError
        If `flow` has no u and v with y and x.

    Examples
    --------
    >>> flow = xr.Dataset({"u": (("y", "x"), [[0.0, 1.0, 2.0]]), "v": (("y", "x"), [[5.0] * 3])})
    >>> divergence(flow).values
    array([[0.5, 1. , 0.5]])
    """
    check_flow(flow)
    for name in ("u", "v"):
        check_array(name, flow[name], "y", "x")
    along, down = flow["u"], flow["v"].transpose(*flow["u"].dims)
    found = _stencil(along, _slope, axis=-1) + _stencil(down, _slope, axis=-2)
    attrs = {"long_name": "divergence of the motion of people", "units": "1 per frame"}
    return found.rename("divergence").assign_attrs(attrs)


def laplacian(frame: xr.DataArray) -> xr.DataArray:
    """Give how far the cells around lie above each cell: peaks are negative, hollows positive.

    Parameters
    ----------
    frame : DataArray of float, (…, y, x)
        Such as people per cell; NaN (no data) is read as nobody.

    Returns
    -------
    DataArray of float, (…, y, x)
        ∂²/∂x² + ∂²/∂y², in the frame's unit per square cell, lazy; edges are replicated. NaN where
        the frame is.

    Raises
    ------
    InputError
        If `frame` does not have these dimensions.

    Examples
    --------
    >>> peak = xr.DataArray([[0.0, 0, 0], [0, 12, 0], [0, 0, 0]], dims=("y", "x"))
    >>> laplacian(peak).values.round(6)
    array([[  3.,   6.,   3.],
           [  6., -36.,   6.],
           [  3.,   6.,   3.]])
    """
    check_array("frame", frame, "y", "x")
    found = _stencil(frame.fillna(0), _bend, axis=-1).where(frame.notnull())  # noqa: PD004
    unit = frame.attrs.get("units", "people")
    name = frame.attrs.get("long_name", "the frame")
    attrs = {"long_name": f"Laplacian of {name}", "units": f"{unit} per square cell"}
    return found.rename("laplacian").assign_attrs(attrs)


def _stencil(array: xr.DataArray, kernel: Kernel, axis: int) -> xr.DataArray:
    """Lay a kernel of 3 × 3 cells over (…, y, x); dimensions keep their order."""
    ordered = array.transpose(..., "y", "x")
    cells = ordered.astype(np.result_type(array.dtype, np.float32)).data
    if isinstance(cells, da.Array):
        thick = merge_thin_chunks(cells, 1)
        last = [len(sizes) - 1 for sizes in thick.chunks[-2:]]
        found = da.map_blocks(
            _inner_block, add_overlap(thick, 1), kernel=kernel, axis=axis, last=last,
            chunks=thick.chunks, dtype=cells.dtype, meta=cells._meta,
        ).rechunk(cells.chunks)  # fmt: skip
    else:
        found = kernel(cells, axis)
    return ordered.copy(data=found).transpose(*array.dims)


def _inner_block(
    block: NDArray, *, kernel: Kernel, axis: int, last: Sequence[int], block_id: Sequence[int]
) -> NDArray:
    """Apply a kernel to a block with its halo, which the raster's border has none of."""
    top, bottom, left, right = own_cells(block.shape, 1, block_id, last)
    return kernel(block, axis)[..., top:bottom, left:right]


def _around(cells: NDArray, dy: int, dx: int) -> NDArray:
    """Read the neighbours at an offset; edges are replicated."""
    rows, columns = (
        np.clip(np.arange(size) + by, 0, size - 1)
        for size, by in zip(cells.shape[-2:], (dy, dx), strict=True)
    )
    return cells[..., rows[:, None], columns]


def _slope(cells: NDArray, axis: int) -> NDArray:
    dy, dx = (0, 1) if axis == -1 else (1, 0)
    return (_around(cells, dy, dx) - _around(cells, -dy, -dx)) / 2


def _bend(cells: NDArray, axis: int) -> NDArray:
    beside = [_around(cells, dy, dx) for dy, dx in ((0, -1), (0, 1), (-1, 0), (1, 0))]
    corners = [_around(cells, dy, dx) for dy in (-1, 1) for dx in (-1, 1)]
    return (2 * np.sum(beside, axis=0) + np.sum(corners, axis=0)) / 4 - 3 * cells
