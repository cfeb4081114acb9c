"""What the first work drew of a flow and of frames: speed, divergence, Laplacian.

All are stencils of 3 × 3 cells on frames whose edges are replicated. The divergence is by central
differences, ∂u/∂x + ∂v/∂y; the Laplacian is the mean of the neighbours less the cell, by the
weights of Horn and Schunck's mean (1/6 beside, 1/12 at corners), times 3: the factor that
approximates ∂²/∂x² + ∂²/∂y².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from popdask.arguments import check_array, check_flow
from popdask.tracking.halo import roomy, with_halo

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
    found = _stencil(frame.fillna(0), _bend, axis=-1).where(frame.notnull())
    unit = frame.attrs.get("units", "people")
    name = frame.attrs.get("long_name", "the frame")
    attrs = {"long_name": f"Laplacian of {name}", "units": f"{unit} per square cell"}
    return found.rename("laplacian").assign_attrs(attrs)


def _stencil(array: xr.DataArray, kernel: Kernel, axis: int) -> xr.DataArray:
    """Lay a kernel of 3 × 3 cells over (…, y, x); dimensions keep their order."""
    ordered = array.transpose(..., "y", "x")
    cells = ordered.astype(np.result_type(array.dtype, np.float32)).data
    if isinstance(cells, da.Array):
        thick = roomy(cells, 1)
        last = [len(sizes) - 1 for sizes in thick.chunks[-2:]]
        found = da.map_blocks(
            _inner_block, with_halo(thick, 1), kernel=kernel, axis=axis, last=last,
            chunks=thick.chunks, dtype=cells.dtype, meta=cells._meta,
        ).rechunk(cells.chunks)  # fmt: skip
    else:
        found = kernel(cells, axis)
    return ordered.copy(data=found).transpose(*array.dims)


def _inner_block(
    block: NDArray, *, kernel: Kernel, axis: int, last: Sequence[int], block_id: Sequence[int]
) -> NDArray:
    """Apply a kernel to a block with its halo, which the raster's border has none of."""
    rows, columns = (
        slice(1 if at else 0, size - (1 if at < end else 0))
        for size, at, end in zip(block.shape[-2:], block_id[-2:], last, strict=True)
    )
    return kernel(block, axis)[..., rows, columns]


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
