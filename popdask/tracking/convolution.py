"""The window autoencoder as a convolution: the array kernel under `popdask.tracking.encoding`.

A dense layer on every 7 × 7 window is a 7 × 7 convolution, so windows are never built: the first
layer is a convolution of the three scaled channels, the later ones are matrix products. The two
position channels are known in advance, and their share of the first layer is separable: one bias
per row plus one per column.

The work goes tile by tile, and within a tile by strips of rows, so that the hidden units of a strip
stay in the cache. Parts of a strip without a cell that is asked for are skipped. Tiles and strips
are fixed to the grid's origin, and the parts follow from the cells that are asked for, never from
the chunks: the last bits of a sum may depend on the shape of the array that it is part of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from popdask.arithmetic import fixed_arithmetic
from popdask.devices import pick_device
from popdask.tracking.fitted import FittedEncoder, axis_positions
from popdask.tracking.network import WINDOW

HALO = WINDOW // 2
TILE = 128
STRIP = 16  # rows: 16 × 128 cells of 128 hidden units are 1 MiB, which a core's cache holds


@dataclass(frozen=True)
class _Layers:
    """An encoder's layers on one device, as a convolution and a chain of matrix products."""

    kernel: Tensor
    """(128, 3, 7, 7), channels last."""
    rows: Tensor
    """Share of the row position, (height, 1, 128)."""
    columns: Tensor
    """Share of the column position, with the layer's bias, (width, 128)."""
    products: list[tuple[Tensor, Tensor]]
    """Weights (in, out) and biases (out) of the layers that follow."""
    linear_end: bool
    """Whether the last layer goes without ReLU."""

    @property
    def width(self) -> int:
        """Values per cell in the end."""
        return self.products[-1][1].shape[0]


@lru_cache(maxsize=8)
def _layers(encoder: FittedEncoder, device: torch.device, decode: bool) -> _Layers:
    """Rearrange an encoder's weights, once per worker process; decoded, only a window's middle."""
    module = encoder.module
    first, *dense = _dense(module.encoder)
    weight = first.weight.double().unflatten(1, (-1, WINDOW, WINDOW))  # (128, 5, 7, 7)
    down, across = (
        torch.tensor(axis_positions(n), dtype=torch.float64)
        for n in (encoder.height, encoder.width)
    )
    later: list[tuple[Tensor, Tensor]] = [(layer.weight, layer.bias) for layer in dense]
    if decode:
        *inner, last = _dense(module.decoder)
        middle = slice(WINDOW**2 // 2, None, WINDOW**2)
        later += [(layer.weight, layer.bias) for layer in inner]
        later += [(last.weight[middle], last.bias[middle])]

    def put(tensor: Tensor) -> Tensor:
        return tensor.float().contiguous().to(device)

    return _Layers(
        put(weight[:, : module.channels]).contiguous(memory_format=torch.channels_last),
        put(down @ weight[:, -2].sum(2).T)[:, None],
        put(across @ weight[:, -1].sum(1).T + first.bias),
        [(put(w.T), put(b)) for w, b in later],
        linear_end=decode,
    )


def _dense(layers: nn.ModuleList) -> list[nn.Linear]:
    return list(layers)  # type: ignore[arg-type]


def _run_strip(layers: _Layers, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Run all layers: image (3, rows + 6, columns + 6), channels last → (rows, columns, width)."""
    h = torch.conv2d(image[None], layers.kernel)[0].permute(1, 2, 0)  # (rows, columns, 128)
    h.add_(columns).add_(rows).relu_()
    size = h.shape[:2]
    h = h.reshape(-1, h.shape[-1])
    for weight, bias in layers.products[:-1]:
        h = torch.addmm(bias, h, weight).relu_()
    weight, bias = layers.products[-1]
    h = torch.addmm(bias, h, weight)
    if not layers.linear_end:
        h.relu_()
    return h.view(*size, -1)


def encode_block(
    block: NDArray[np.floating],
    mask: NDArray[np.bool_],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    encoder: FittedEncoder,
    pad: Sequence[tuple[int, int]],
    device: str,
    decode: bool,
) -> NDArray[np.float32]:
    """Encode one chunk that starts at a tile's corner: (…, 3, y + 6, x + 6) → (…, y, x, width)."""
    where = pick_device(device)
    image = np.pad(block.reshape(block.shape[-3:]), [(0, 0), *pad])
    asked: NDArray[np.bool_] = mask.reshape(mask.shape[-2:])
    with fixed_arithmetic(), torch.inference_mode():
        layers = _layers(encoder, where, decode)
        out = np.full((*asked.shape, layers.width), np.nan, np.float32)
        for top in range(0, asked.shape[0], TILE):
            for left in range(0, asked.shape[1], TILE):
                area = slice(top, top + TILE), slice(left, left + TILE)
                if asked[area].any():
                    seen = image[:, top : top + TILE + 2 * HALO, left : left + TILE + 2 * HALO]
                    corner = int(row[0]) + top, int(column[0]) + left
                    scaled = _scaled(seen, corner, encoder)
                    _encode_tile(layers, scaled, corner, asked[area], out[area], where)
    if decode:
        out = np.moveaxis(encoder.scaling.restore(np.moveaxis(out, -1, 0)), 0, -1)
    out[~asked] = np.nan
    return out.reshape(*mask.shape, layers.width)


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
    image = torch.from_numpy(scaled).to(device)  # (3, height + 6, width + 6)
    image = image[None].contiguous(memory_format=torch.channels_last)[0]
    columns = layers.columns[column : column + width]
    step = STRIP if device.type == "cpu" else TILE
    for top in range(0, height, step):
        strip = slice(top, min(top + step, height))
        rows = layers.rows[row + strip.start : row + strip.stop]
        for left, right in _wanted(asked[strip], step):
            seen = image[:, strip.start : strip.stop + 2 * HALO, left : right + 2 * HALO]
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
    scaled = encoder.scaling.scale(seen)
    if encoder.edge == "zero":
        for axis, start, length in zip(
            (1, 2), corner, (encoder.height, encoder.width), strict=True
        ):
            along = np.moveaxis(scaled, axis, 0)
            along[: max(0, HALO - start)] = 0
            along[length - start + HALO :] = 0
    return scaled
