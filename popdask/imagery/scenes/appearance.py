"""What the cells of an image look like, in numbers: the features of a network for pictures.

Every cell is shown to EfficientNet-B3 as a picture of 300 × 300 pixels in three bands, and what its
last layer sees, averaged over the picture and brought to length 1, are the cell's 1536 features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed, delayed
from numpy.typing import DTypeLike, NDArray
from odc.geo.xr import xr_coords

from popdask.errors import InputError
from popdask.imagery.cells import as_bands
from popdask.imagery.cells.dataset import CHUNK_CELLS
from popdask.imagery.cells.lattice import Lattice, find_lattice, nodata_of, valid_pixels
from popdask.imagery.grid import CellGrid, as_grid, block_side
from popdask.imagery.models import Normalisation
from popdask.imagery.scenes._eye import Eye
from popdask.imagery.scenes.efficientnet import (
    FEATURES,
    MEAN,
    SIZE,
    STD,
    EfficientNetB3,
    load_efficientnet,
)


def scene_features(
    source: xr.Dataset | xr.DataArray,
    *,
    weights: str | Path | None = None,
    cell_size: float | CellGrid | None = None,
    bands: Sequence[int] | None = None,
    white: float | None = None,
    size: int = SIZE,
    batch_size: int = 32,
    device: str = "auto",
    seed: int = 0,
) -> xr.DataArray:
    """Describe what every cell looks like by 1536 features of EfficientNet-B3.

    Parameters
    ----------
    source : Dataset or DataArray
        Cells with ``images`` (cell, band, row, col), as `popdask.imagery.cells.cut_cells` gives
        them, seen with their ring if they have one; or a mosaic (band, y, x) or (y, x) with a CRS
        and a whole number of pixels in each cell.
    weights : None, "imagenet", str or Path, optional
        None for a random network, which tells textures apart; "imagenet" for the published weights,
        fetched once; or a file of them, as `load_efficientnet` says.
    cell_size : float or CellGrid, optional
        Of a mosaic: the side of a cell in units of its CRS, on the grid from its origin; or the
        grid.
    bands : sequence of int, optional
        Which bands to show, by position from 0: one, as grey, or three. By default all.
    white : float, optional
        The value that is white; the largest of an integer type, 1 for floats. What is brighter is
        shown as white.
    size : int, optional
        Rows and columns that a cell is resized to; the published weights know 300.
    batch_size : int, optional
        Cells that pass through the network at once on a GPU.
    device : str, optional
        A torch device, or "auto": a GPU where the worker has one.
    seed : int, optional
        Of a random network.

    Returns
    -------
    DataArray of float32, (cell, feature) or (y, x, feature)
        Lazy, with the coordinates of the cells, or of the whole cells in the mosaic, north up. Each
        cell's features have length 1; NaN where a pixel of the cell has no data.

    Raises
    ------
    InputError
        If the bands to show are neither one nor three, the mosaic does not fit the grid, or a
        setting is out of range; on computing, if the weights cannot be read.

    Notes
    -----
    Sellebjerg et al., Population Estimation, group scenes by these features (Tan and Le 2019). The
    same to the bit under any chunking, on one kind of machine and device. A task holds one chunk of
    cells, or a square of up to 8 × 8 of the mosaic's; the network is one key of the graph. About
    0.1 s per cell on one CPU core.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> grid = CellGrid(100)
    >>> image = xr_zeros(grid.geobox(range(3), range(4), pixels=20), "uint8", chunks=(20, 20)) + 9
    >>> dict(scene_features(image, cell_size=100, size=32).sizes)
    {'y': 3, 'x': 4, 'feature': 1536}
    """
    _check_settings(size, batch_size)
    network = delayed(load_efficientnet, pure=True)(weights, seed=seed)
    if isinstance(source, xr.Dataset):
        images = source["images"].transpose("cell", "band", "row", "col")
        eye = _eye(images.sizes["band"], images.dtype, bands, white, size, batch_size, device)
        features = _of_cells(source, images, eye, network)
    else:
        if cell_size is None:
            raise InputError(
                "cell_size is not given; expected the side of a cell, because a mosaic does not "
                "say it: give it in units of the mosaic's CRS, such as 100"
            )
        image = as_bands(source)
        lattice = find_lattice(image, as_grid(cell_size, image.rio.crs))
        eye = _eye(image.sizes["band"], image.dtype, bands, white, size, batch_size, device)
        features = _of_mosaic(image, lattice, eye, network)
    attrs = {"long_name": "what the cell looks like", "units": "1"}
    return features.assign_attrs(attrs, weights=str(weights or f"random, seed {seed}"))


def _check_settings(size: int, batch_size: int) -> None:
    for name, value, least in (("size", size, 32), ("batch_size", batch_size, 1)):
        if not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name} is {value!r}; expected a whole number from {least} up")


def _eye(
    count: int,
    dtype: DTypeLike,
    bands: Sequence[int] | None,
    white: float | None,
    size: int,
    batch_size: int,
    device: str,
) -> Eye:
    chosen = tuple(range(count)) if bands is None else tuple(int(band) for band in bands)
    if len(chosen) not in (1, 3) or not all(0 <= band < count for band in chosen):
        raise InputError(
            f"bands {chosen} of {count} are to be shown; expected one of them, or three: choose by "
            "position from 0, such as bands=(0, 1, 2)"
        )
    scaling = Normalisation(Normalisation.half(dtype, white=white).white, MEAN, STD)
    return Eye(chosen, scaling, int(size), int(batch_size), device)


def _of_cells(cells: xr.Dataset, images: xr.DataArray, eye: Eye, network: Delayed) -> xr.DataArray:
    """Describe cells chunk by chunk."""
    pixels = _lazy(images.data, (CHUNK_CELLS, -1, -1, -1))
    pixels = pixels.rechunk((pixels.chunks[0], -1, -1, -1))
    whole = da.ones(len(pixels), dtype="float32")
    if "covered" in cells:
        whole = da.asarray(cells["covered"].data)
    whole = whole.rechunk((pixels.chunks[0],))[:, None, None, None]
    features = da.map_blocks(
        _cells_block,
        pixels,
        whole,
        eye=eye,
        network=network,
        drop_axis=[1, 2, 3],
        new_axis=[1],
        chunks=(pixels.chunks[0], (FEATURES,)),
        meta=np.empty((0, 0), np.float32),
    )
    kept = ("cell_size", "resolution", "context", "origin")
    attrs = {name: cells.attrs[name] for name in kept if name in cells.attrs}
    coords = {name: coord for name, coord in cells.coords.items() if set(coord.dims) <= {"cell"}}
    return xr.DataArray(features, coords, ("cell", "feature"), name="features", attrs=attrs)


def _of_mosaic(image: xr.DataArray, lattice: Lattice, eye: Eye, network: Delayed) -> xr.DataArray:
    """Describe the whole cells of a mosaic, square of the grid by square."""
    p, side = lattice.pixels, block_side(lattice.pixels)
    down = range(-(-lattice.top // p), (lattice.top + lattice.height) // p)
    east = range(-(-lattice.left // p), (lattice.left + lattice.width) // p)
    if not (len(down) and len(east)):
        raise InputError(
            f"the mosaic of {lattice.height} × {lattice.width} pixels holds no whole cell of "
            f"{lattice.grid.label}; expected at least one: use smaller cells or a larger mosaic"
        )
    inner = image.isel(
        y=slice(down.start * p - lattice.top, down.stop * p - lattice.top),
        x=slice(east.start * p - lattice.left, east.stop * p - lattice.left),
    )
    chunks = _squares(down, side), _squares(east, side)
    pixels = tuple(tuple(n * p for n in axis) for axis in chunks)
    features = da.map_blocks(
        _mosaic_block,
        _lazy(inner.data, -1).rechunk((-1, *pixels)),
        valid_pixels(inner, nodata_of(image)).rechunk(pixels)[None],
        eye=eye,
        network=network,
        step=p,
        drop_axis=[0],
        new_axis=[2],
        chunks=(*chunks, (FEATURES,)),
        meta=np.empty((0, 0, 0), np.float32),
    )
    grid = lattice.grid
    norths = range(-down.stop, -down.start)
    attrs = {"cell_size": grid.size, "origin": list(grid.origin), "resolution": grid.size / p}
    coords = xr_coords(grid.geobox(norths, east), dims=("y", "x"))
    dims = ("y", "x", "feature")
    return xr.DataArray(features, coords, dims, name="features", attrs=attrs | {"context": 0})


def _lazy(data: Any, chunks: Any) -> da.Array:
    """Give NumPy arrays to Dask in chunks, without hashing them."""
    return data if isinstance(data, da.Array) else da.from_array(data, chunks, name=False)


def _squares(cells: range, side: int) -> tuple[int, ...]:
    """Split cells at every multiple of a side."""
    edges = [cells.start, *range((cells.start // side + 1) * side, cells.stop, side), cells.stop]
    return tuple(np.diff(edges).tolist())


def _cells_block(
    images: NDArray, whole: NDArray[np.float32], eye: Eye, network: EfficientNetB3
) -> NDArray[np.float32]:
    """Describe images (n, band, row, col) of which a share has data → (n, 1536)."""
    return eye.describe(images, whole.ravel() == 1, network)


def _mosaic_block(
    block: NDArray, valid: NDArray[np.bool_], eye: Eye, network: EfficientNetB3, step: int
) -> NDArray[np.float32]:
    """Describe the cells of step × step pixels in (band, rows, columns) → (y, x, 1536)."""
    band, rows, cols = block.shape
    y, x = rows // step, cols // step
    cells = block.reshape(band, y, step, x, step).transpose(1, 3, 0, 2, 4)
    whole = valid.reshape(y, step, x, step).all((1, 3))
    flat = cells.reshape(y * x, band, step, step)
    return eye.describe(flat, whole.ravel(), network).reshape(y, x, FEATURES)
