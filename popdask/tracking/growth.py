"""Growth against movement: what a flow carries into and out of every cell, and what remains.

People who move with velocity v and are born or die at the rate s obey the balance ∂P/∂t = −∇·(Pv)
+ s. Here the people of every cell are carried to where the flow takes them; s is what the next
frame holds beyond what arrived and stayed.

The trick is to count people as whole numbers of 2⁻³² of a person: what leaves a cell is what
arrives elsewhere, to the last of them, in whatever order blocks are computed.
"""

from __future__ import annotations

import dask.array as da
import numba
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from popdask.arguments import check_array, check_labels
from popdask.errors import InputError
from popdask.exact import words
from popdask.tracking.halo import roomy, with_halo
from popdask.tracking.tally import Table, sum_frames, tabulate
from popdask.tracking.warping import components, farthest

UNIT = 2.0**32
PARTS = ("moved_in", "moved_out", "grown", "change")
_NAMES = {
    "moved_in": "people who moved in from other cells",
    "moved_out": "people who moved out to other cells",
    "grown": "people more than movement explains",
    "change": "people more than in the frame before",
}


def growth(
    population: xr.DataArray, flow: xr.Dataset, *, whole: bool = True, reach: int | None = None
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

    Returns
    -------
    Dataset
        Of every frame but the last, float64 (time, y, x), lazy: `moved_in`, `moved_out` (of those,
        some beyond the raster), `grown` and `change`, in people, with change = moved_in −
        moved_out + grown. The last two are NaN where either frame is. The coordinate `next` is the
        time of the later frame.

    Raises
    ------
    InputError
        If `population` does not have these dimensions, or the flow other frames or cells.

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
    check_array("population", population, "time", "y", "x")
    people = population.transpose("time", "y", "x")
    cells = da.asarray(people.data).rechunk({0: 1}).astype(np.float64)
    u, v = components("flow", flow, cells)
    reach = farthest(flow) if reach is None else reach
    parts = _moved(cells[:-1], u[:-1], v[:-1], whole, reach + 1)
    before, after = (frames.rechunk(parts.chunks[:1] + parts.chunks[2:]) for frames in
                     (cells[:-1], cells[1:]))  # fmt: skip
    moved_in, moved_out, change = parts[:, 0], parts[:, 1], after - before
    layers = moved_in, moved_out, change - (moved_in - moved_out), change
    like = people.isel(time=slice(-1))
    found = {
        name: (like.dims, _rechunked(layer, like), {"long_name": _NAMES[name], "units": "people"})
        for name, layer in zip(PARTS, layers, strict=True)
    }
    later = {"next": ("time", people["time"].to_numpy()[1:])}
    return xr.Dataset(found, coords=like.coords).assign_coords(later)


def growth_by_label(parts: xr.Dataset, labels: xr.DataArray | None = None) -> pd.DataFrame:
    """Add up movement and growth by settlement or community, or over the whole raster.

    Eager: one pass over the cells, one call of :func:`dask.compute`. What moves within a label is
    in both `moved_in` and `moved_out`; their difference is what it gained from elsewhere.

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
        ``moved_out``, ``grown``, ``change`` (people, cells without data left out) and
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
        check_labels("labels", labels)
        if dict(labels.sizes) != dict(parts.sizes):
            raise InputError(
                f"labels have the sizes {dict(labels.sizes)}; expected those of the growth, "
                f"{dict(parts.sizes)}; select the later frames, as in labels.isel(time=slice(1, "
                "None))"
            )
        keys = da.asarray(labels.transpose("time", "y", "x").data)
    tables = sum_frames(_sum_block, keys, *lazy).compute() if len(keys) else []
    times = zip(parts["time"].to_numpy(), parts["next"].to_numpy(), strict=True)
    empty = _rows(Table(np.zeros(0, np.int64), np.zeros((12, 0), np.int64)))
    rows = [_rows(table).assign(time=time, next=after)
            for table, (time, after) in zip(tables, times, strict=True)]  # fmt: skip
    found = pd.concat(rows or [empty.assign(time=[], next=[])])
    columns = ["time", "next", *(["label"] if labels is not None else []), *PARTS, "explained"]
    return found[columns].reset_index(drop=True)


def _rechunked(layer: da.Array, like: xr.DataArray) -> da.Array:
    return layer.rechunk(like.chunks or layer.chunks)


def _moved(cells: da.Array, u: da.Array, v: da.Array, whole: bool, depth: int) -> da.Array:
    """Give the people (time, 2, y, x) who move into and out of each cell."""
    cells = roomy(cells, depth)
    u, v = (part.rechunk(cells.chunks) for part in (u, v))
    rimmed = (with_halo(array, depth, fill=0) for array in (cells, u, v))
    return da.map_blocks(
        _moved_block,
        *(array[:, None] for array in rimmed),
        whole=whole,
        depth=depth,
        chunks=(cells.chunks[0], (2,), *cells.chunks[1:]),
        dtype=np.float64,
        meta=np.empty((0, 0, 0, 0)),
    )


def _moved_block(
    people: NDArray[np.float64], u: NDArray, v: NDArray, *, whole: bool, depth: int
) -> NDArray[np.float64]:
    """Count who moves into and out of a block's own cells, from blocks (1, 1, y, x) with rims."""
    height, width = people.shape[2:]
    counts = np.zeros((2, height - 2 * depth, width - 2 * depth), np.int64)
    _carry(people[0, 0], u[0, 0], v[0, 0], whole, depth, counts)
    return counts[None] / UNIT


@numba.njit(cache=True, nogil=True)
def _carry(
    people: NDArray, u: NDArray, v: NDArray, whole: bool, depth: int, counts: NDArray
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
                if row + j == 0 and column + i == 0:
                    continue
                _add(counts[1], y - depth, x - depth, part)
                _add(counts[0], y + row + j - depth, x + column + i - depth, part)


@numba.njit(cache=True, nogil=True)
def _add(counts: NDArray, y: int, x: int, part: int) -> None:
    """Add to a cell, where the block has it."""
    if 0 <= y < counts.shape[0] and 0 <= x < counts.shape[1]:
        counts[y, x] += part


def _sum_block(labels: NDArray, *parts: NDArray[np.float64]) -> Table:
    """Tabulate a block's parts by label, and what they change apart from sign; two words each."""
    inside = labels >= 0
    values = [part[inside] for part in parts]
    values += [np.abs(values[PARTS.index(name)]) for name in ("grown", "change")]
    columns = [word for value in values for word in words(value)]
    return tabulate(labels[inside].astype(np.int64), columns)


def _rows(table: Table) -> pd.DataFrame:
    sums = {name: table.reals(2 * i) for i, name in enumerate(PARTS)}
    left, changed = table.reals(8), table.reals(10)
    explained = np.full(len(changed), np.nan)
    np.divide(changed - left, changed, out=explained, where=changed > 0)
    return pd.DataFrame({"label": table.keys, **sums, "explained": explained})
