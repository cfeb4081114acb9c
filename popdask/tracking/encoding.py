"""Cells encoded: windows as convolutions, on a lattice of tiles.

A dense layer on every window of 7 × 7 cells is a convolution of that size, so windows are never
built: the first layer is a convolution of the three scaled channels, the later ones are matrix
products. The two position channels are known in advance, and their share of the first layer is
separable: one bias per row plus one per column. A symmetric encoder has no positions, and sees
eight views of every window; instead of the windows its kernels are turned and mirrored, so that one
convolution sees them all.

The work goes tile by tile, and within a tile by strips of rows, so that the hidden units of a strip
stay in the cache. Parts of a strip without a cell that is asked for are skipped. Tiles and strips
are fixed to the grid's origin, and the parts follow from the cells that are asked for, never from
the chunks: the last bits of a sum may depend on the shape of the array that it is part of, and a
class hangs on the last bit. Chunks are moved to the borders of tiles, and Dask adds a halo of half
a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from xarray import DataArray, Dataset

from popdask.blocks.overlap import add_overlap, as_dask
from popdask.blocks.sums import first_cells
from popdask.blocks.torch import fixed_arithmetic, pick_device
from popdask.errors import InputError
from popdask.io.conventions import check_population
from popdask.tracking import MOST_TILES, STRIP, TILE
from popdask.tracking.autoencoder import (
    ACTIVATIONS,
    FittedEncoder,
    axis_positions,
    check_features,
    usable_cells,
    views,
)
from popdask.validate import check_flow, check_instance

CHANNELS = ("population", "u", "v")


@dataclass(frozen=True)
class _Layers:
    """An encoder's layers on one device, as a convolution and a chain of matrix products."""

    views: int
    """Views of a window, whose codes are averaged in the end."""
    kernel: Tensor
    """(128, 3, window, window), channels last, view after view."""
    rows: Tensor
    """Share of the row position, (height, 1, 128)."""
    columns: Tensor
    """Share of the column position, with the layer's bias, (width, 128)."""
    products: list[tuple[Tensor, Tensor]]
    """Weights (in, out) and biases (out) of the layers that follow."""
    activations: list[Callable[[Tensor], Tensor]]
    """Of the convolution and of the layers that follow."""

    @property
    def width(self) -> int:
        """Values per cell in the end."""
        return self.products[-1][1].shape[0]


@lru_cache(maxsize=8)
def _layers(encoder: FittedEncoder, device: torch.device, decode: bool) -> _Layers:
    """Rearrange an encoder's weights, once per worker process; decoded, only a window's middle."""
    module, window = encoder.module, encoder.window
    first, *dense = _dense(module.encoder)
    weight = first.weight.double().unflatten(1, (-1, window, window))  # (128, 5, 7, 7)
    people_and_motion = weight[:, : module.channels]
    kernels = views(people_and_motion) if encoder.symmetric and not decode else [people_and_motion]
    bias = first.bias.repeat(len(kernels))
    rows, columns = (bias.new_zeros(n, len(bias)) for n in (encoder.height, encoder.width))
    if module.positions:
        down, across = (
            torch.tensor(axis_positions(n, window), dtype=torch.float64)
            for n in (encoder.height, encoder.width)
        )
        rows, columns = down @ weight[:, -2].sum(2).T, across @ weight[:, -1].sum(1).T
    later: list[tuple[Tensor, Tensor]] = [(layer.weight, layer.bias) for layer in dense]
    activations = [*[module.activate] * len(dense), module.activate_latent]
    if decode:
        *inner, last = _dense(module.decoder)
        middle = slice(window**2 // 2, None, window**2)
        later += [(layer.weight, layer.bias) for layer in inner]
        later += [(last.weight[middle], last.bias[middle])]
        activations += [*[module.activate] * len(inner), ACTIVATIONS["linear"]]

    def put(tensor: Tensor) -> Tensor:
        return tensor.float().contiguous().to(device)

    return _Layers(
        len(kernels),
        put(torch.cat(kernels)).contiguous(memory_format=torch.channels_last),
        put(rows)[:, None],
        put(columns + bias),
        [(put(w.T), put(b)) for w, b in later],
        activations,
    )


def _dense(layers: nn.ModuleList) -> list[nn.Linear]:
    return list(layers)  # type: ignore[arg-type]


def _run_strip(layers: _Layers, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Run all layers: image with its halo, channels last → (rows, columns, width)."""
    h = torch.conv2d(image[None], layers.kernel)[0].permute(1, 2, 0)  # (rows, columns, 128)
    first, *others = layers.activations
    h = first(h.add_(columns).add_(rows))
    size = h.shape[:2]
    h = h.reshape(-1, h.shape[-1] // layers.views)
    for (weight, bias), activate in zip(layers.products, others, strict=True):
        h = activate(torch.addmm(bias, h, weight))
    if layers.views > 1:
        h = h.view(-1, layers.views, h.shape[-1]).mean(1)
    return h.view(*size, -1)


def _encode_block(
    block: NDArray[np.floating],
    mask: NDArray[np.bool_] | None,
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    encoder: FittedEncoder,
    *,
    device: str,
    decode: bool,
) -> NDArray[np.float32]:
    """Encode a chunk that starts at a tile's corner: (…, 3, y, x) with halo → (…, y, x, width)."""
    where, rim = pick_device(device), encoder.window - 1
    image = block.reshape(block.shape[-3:])
    own = slice(rim // 2, -(rim // 2))
    asked = ~np.isnan(image[0, own, own])
    if mask is not None:
        asked &= mask.reshape(asked.shape)
    with fixed_arithmetic(), torch.inference_mode():
        layers = _layers(encoder, where, decode)
        out = np.full((*asked.shape, layers.width), np.nan, np.float32)
        for top in range(0, asked.shape[0], TILE):
            for left in range(0, asked.shape[1], TILE):
                area = slice(top, top + TILE), slice(left, left + TILE)
                if asked[area].any():
                    seen = image[:, top : top + TILE + rim, left : left + TILE + rim]
                    corner = int(row[0]) + top, int(column[0]) + left
                    scaled = _scaled(seen, corner, encoder)
                    _encode_tile(layers, scaled, corner, asked[area], out[area], where)
    if decode:
        out = np.moveaxis(encoder.scaling.restore(np.moveaxis(out, -1, 0)), 0, -1)
    out[~asked] = np.nan
    return out.reshape(*block.shape[:-3], *out.shape)


def _encode_tile(
    layers: _Layers,
    scaled: NDArray[np.float32],
    corner: tuple[int, int],
    asked: NDArray[np.bool_],
    out: NDArray[np.float32],
    device: torch.device,
) -> None:
    """Encode into `out` (rows, columns, width) the strips of a tile that hold a cell asked for."""
    row, column = corner
    height, width = asked.shape
    image = torch.from_numpy(scaled).to(device)  # (3, height, width) with its halo
    image = image[None].contiguous(memory_format=torch.channels_last)[0]
    columns, rim = layers.columns[column : column + width], layers.kernel.shape[-1] - 1
    step = STRIP if device.type == "cpu" else TILE
    for top in range(0, height, step):
        strip = slice(top, min(top + step, height))
        rows = layers.rows[row + strip.start : row + strip.stop]
        for left, right in _wanted(asked[strip], step):
            seen = image[:, strip.start : strip.stop + rim, left : right + rim]
            values = _run_strip(layers, seen, rows, columns[left:right])
            out[strip, left:right] = values.cpu().numpy()


def _wanted(asked: NDArray[np.bool_], step: int) -> Iterator[tuple[int, int]]:
    """Find the parts of a strip, in whole steps of columns, that hold a cell asked for."""
    width = asked.shape[1]
    starts = np.arange(0, width, step)
    held = np.add.reduceat(asked.any(axis=0), starts) > 0
    edges = np.flatnonzero(np.diff(held, prepend=False, append=False))
    for first, last in edges.reshape(-1, 2):
        yield int(first) * step, min(int(last) * step, width)


def _scaled(
    seen: NDArray[np.floating], corner: tuple[int, int], encoder: FittedEncoder
) -> NDArray[np.float32]:
    """Scale a tile with its halo; beyond the raster it holds raw zeros, which "neutral" keeps."""
    scaled, halo = encoder.scaling.scale(seen), encoder.window // 2
    if encoder.edge == "zero":
        for axis, start, length in zip(
            (1, 2), corner, (encoder.height, encoder.width), strict=True
        ):
            along = np.moveaxis(scaled, axis, 0)
            along[: max(0, halo - start)] = 0
            along[length - start + halo :] = 0
    return scaled


def stack_features(population: DataArray, flow: Dataset, *, clip: float = 1000.0) -> DataArray:
    """Stack people and their flow as the three raw channels of an encoder.

    Parameters
    ----------
    population : DataArray, (y, x) or (time, y, x)
        People per cell, NaN where there is no data.
    flow : Dataset
        `u` and `v` on the same grid, cells per frame, as from `optical_flow`.
    clip : float, optional
        No channel exceeds this; lower values, negative ones too, stay as they are.

    Returns
    -------
    DataArray of float32, (channel, y, x) or (time, channel, y, x)
        Channels "population", "u", "v", not scaled, not padded; lazy, all channels in one chunk.
        No data stays NaN in the population channel.

    Raises
    ------
    InputError
        If the grids differ or `clip` is not positive.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> population = xr.DataArray([[5.0, 2000.0]], dims=("y", "x"))
    >>> still = xr.zeros_like(population)
    >>> stack_features(population, xr.Dataset({"u": still, "v": still})).values[0]
    array([[   5., 1000.]], dtype=float32)
    """
    population = check_population("population", population)
    check_flow(flow)
    if not clip > 0:
        raise InputError(f"clip is {clip}, expected a positive number such as 1000")
    population = population.transpose(..., "y", "x")
    for name in ("u", "v"):
        if dict(flow[name].sizes) != dict(population.sizes):
            raise InputError(
                f"flow {name} {dict(flow[name].sizes)} does not lie on the population's grid "
                f"{dict(population.sizes)}; compute it from the same cube"
            )
    layers = population, flow["u"], flow["v"]
    people, *motion = (as_dask(layer.transpose(*population.dims).data) for layer in layers)
    *frames, rows, columns = people.chunks
    stacked = da.map_blocks(
        _stack_blocks,
        people,
        *(array.rechunk(people.chunks) for array in motion),
        clip=clip,
        new_axis=len(frames),
        chunks=(*frames, (len(layers),), rows, columns),
        dtype=np.float32,
        meta=np.empty((0,) * (people.ndim + 1), np.float32),
    )
    dims = (*population.dims[:-2], "channel", "y", "x")
    coords = {**population.coords, "channel": list(CHANNELS)}
    attrs = {"long_name": "people per cell and their flow, clipped"}
    return DataArray(stacked, coords, dims, name="features", attrs=attrs)


def _stack_blocks(*blocks: NDArray[np.floating], clip: float) -> NDArray[np.float32]:
    return np.minimum(np.stack(blocks, axis=-3, dtype=np.float32), np.float32(clip))


def encode(
    features: DataArray,
    encoder: FittedEncoder,
    *,
    mask: DataArray | None = None,
    device: str = "auto",
) -> DataArray:
    """Encode every cell of a raster by the window around it.

    Parameters
    ----------
    features : DataArray, (channel, y, x) or (time, channel, y, x)
        Raw clipped channels as from `stack_features`, on the grid that the encoder was fitted to.
    encoder : FittedEncoder
        As from `fit_autoencoder`.
    mask : DataArray of bool, (y, x) or (time, y, x), optional
        Cells to encode, such as `domain` gives; all cells with data by default.
    device : str, optional
        A torch device, or "auto": a GPU where the worker has one.

    Returns
    -------
    DataArray of float32, (y, x, latent) or (time, y, x, latent)
        Finite (at least 0, where the activation is ReLU) for every cell asked for that has data,
        NaN elsewhere. Lazy; its chunks are those of `features`, moved to the lattice of tiles, at
        most 1024 cells wide, and one frame each.

    Raises
    ------
    InputError
        If features or mask do not lie on the encoder's grid, or their channels differ.

    Notes
    -----
    The same bits under any chunking on one kind of machine. The encoder is one key of the graph
    that all tasks share, so it travels to a worker once.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from popdask.tracking.autoencoder import fit_autoencoder
    >>> people = np.random.default_rng(0).poisson(3, (3, 20, 30)).astype("float32")
    >>> features = xr.DataArray(people, dims=("channel", "y", "x"))
    >>> encoder = fit_autoencoder(features, epochs=2, windows_per_epoch=64)
    >>> encode(features, encoder).sizes
    Frozen({'y': 20, 'x': 30, 'latent': 16})
    """
    latent = _map_tiles(features, encoder, mask, device, decode=False).rename("latent")
    return latent.assign_attrs(long_name="code of the window around the cell", units="1")


def reconstruct(
    features: DataArray,
    encoder: FittedEncoder,
    *,
    mask: DataArray | None = None,
    device: str = "auto",
) -> DataArray:
    """Encode every cell and decode it again: what the code remembers of the cell itself.

    Parameters
    ----------
    features, encoder, mask, device
        As for `encode`.

    Returns
    -------
    DataArray of float32, (channel, y, x) or (time, channel, y, x)
        The middle of each reconstructed window, scaled back to people and cells per frame; NaN
        where `encode` is. Lazy, in the same chunks as `encode`.

    Raises
    ------
    InputError
        As for `encode`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from popdask.tracking.autoencoder import fit_autoencoder
    >>> people = np.random.default_rng(0).poisson(3, (3, 20, 30)).astype("float32")
    >>> features = xr.DataArray(people, dims=("channel", "y", "x"))
    >>> encoder = fit_autoencoder(features, epochs=2, windows_per_epoch=64)
    >>> reconstruct(features, encoder).sizes
    Frozen({'channel': 3, 'y': 20, 'x': 30})
    """
    decoded = _map_tiles(features, encoder, mask, device, decode=True)
    decoded = decoded.rename(latent="channel").transpose(..., "channel", "y", "x")
    if "channel" in features.coords:
        decoded = decoded.assign_coords(channel=features["channel"])
    return decoded.rename("reconstruction").assign_attrs(long_name="features reconstructed")


def _map_tiles(
    features: DataArray,
    encoder: FittedEncoder,
    mask: DataArray | None,
    device: str,
    *,
    decode: bool,
) -> DataArray:
    """Run an encoder over the lattice: (…, channel, y, x) → (…, y, x, latent)."""
    check_instance("encoder", encoder, FittedEncoder, "fit_autoencoder")
    check_features(features)
    features = features.transpose(..., "channel", "y", "x")
    expected = (encoder.module.channels, encoder.height, encoder.width)
    if features.shape[-3:] != expected:
        raise InputError(
            f"features have (channel, y, x) = {features.shape[-3:]}, expected {expected}, what the "
            "encoder was fitted to; fit one on this grid"
        )
    asked = usable_cells(features, mask)
    array = as_dask(features.data)
    frames = [(1,) * size for size in asked.shape[:-2]]
    halo = encoder.window // 2
    chunks = [lattice_chunks(sizes, halo) for sizes in array.chunks[-2:]]
    array = array.rechunk((*frames, (expected[0],), *chunks))
    lead = tuple("abc"[: len(frames)])
    wanted: tuple[Any, Any] = (None, None)
    if mask is not None:
        cells = as_dask(mask.broadcast_like(asked).transpose(*asked.dims).data)
        wanted = cells.rechunk((*frames, *chunks)), (*lead, "y", "x")
    starts = [da.from_array(cells, chunks=1, name=False) for cells in first_cells(chunks)]
    width = expected[0] if decode else encoder.config.latent
    out = da.blockwise(
        _encode_block,
        (*lead, "y", "x", "c"),
        add_overlap(array, halo, fill=0),
        (*lead, "c", "y", "x"),
        *wanted,
        starts[0],
        "y",
        starts[1],
        "x",
        dask.delayed(encoder, pure=True, traverse=False),
        None,
        device=device,
        decode=decode,
        adjust_chunks={"c": width, "y": chunks[0], "x": chunks[1]},
        align_arrays=False,
        dtype=np.float32,
        meta=np.empty((0,) * array.ndim, np.float32),
    )
    coords = {name: c for name, c in features.coords.items() if "channel" not in c.dims}
    return DataArray(out, coords, (*asked.dims, "latent"))


def lattice_chunks(
    sizes: Sequence[int], halo: int, tile: int = TILE, most: int = MOST_TILES
) -> tuple[int, ...]:
    """Move chunk borders to the nearest tile borders; at most `most` tiles to a chunk."""
    length = sum(sizes)
    borders = {round(end / tile) * tile for end in np.cumsum(sizes)[:-1]}
    # A last chunk thinner than the halo could not lend its neighbour enough rows.
    inner = sorted(b for b in borders if 0 < b <= length - halo)
    even: list[int] = []
    for start, end in pairwise([0, *inner, length]):
        even += range(start, end, most * tile)
    even = [b for b in even if b <= length - halo] or [0]
    return tuple(int(b - a) for a, b in pairwise([*even, length]))
