"""The maps of a report: every frame of every layer, as fine as a budget of bytes allows.

Frames are read once, chunk by chunk, at the finest level that a browser can draw; every coarser
level of the pyramid comes from the one before it. People of cells that become one are added, and
labels are the commonest one. All levels are packed at once and the finest that fits is kept, so
that a large region costs no second reading.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import dask
import numpy as np
import xarray as xr

from popdask.figures.reduce import By, block_size, reduced, shrink

MOST_CELLS = 4_000_000  # of a frame; phones refuse larger canvases than 16 million
LEVELS = 6
NO_DATA, NOBODY, FIRST = 0, 1, 2  # the codes of amounts: the rest are steps of a log scale
STEPS = 255 - FIRST


@dataclass(frozen=True)
class Overview:
    """The frames of all layers, at one level of the pyramid."""

    rows: int
    cols: int
    factor: int
    """Cells of the raster along a side of one of the map's."""
    frames: Mapping[str, list[dict[str, Any]]]
    """By layer: packed ``codes`` and their ``dtype``; of amounts the ends of the scale, ``low`` and
    ``high``; of labels how many there are, ``labels``."""

    @property
    def bytes(self) -> int:
        """Size of all frames within the page."""
        return sum(len(frame["codes"]) for frames in self.frames.values() for frame in frames)

    def without_codes(self) -> Overview:
        """Give what is told of the frames, without the frames."""
        told = {
            name: [{**frame, "codes": ""} for frame in frames]
            for name, frames in self.frames.items()
        }
        return replace(self, frames=told)


def pyramid(
    layers: Mapping[str, xr.DataArray],
    by: Mapping[str, By] | None = None,
    *,
    most_cells: int = MOST_CELLS,
) -> list[Overview]:
    """Reduce the frames of layers, level by level.

    Parameters
    ----------
    layers
        Rasters (time, y, x) of one grid, by name: floats are amounts, NaN = no data; integers are
        labels, −1 = none.
    by
        How layers are reduced; those that are not named, amounts by their sum and labels by the
        commonest.
    most_cells
        Cells of a frame at most.

    Returns
    -------
    list of Overview
        The finest level first; each has half the cells of the one before along a side.

    Examples
    --------
    >>> people = xr.DataArray(np.ones((2, 64, 64), np.float32), dims=("time", "y", "x"))
    >>> [level.factor for level in pyramid({"population": people})]
    [1, 2, 4, 8, 16, 32]
    >>> [level.rows for level in pyramid({"population": people}, most_cells=1000)]
    [22, 11, 6, 3, 2]
    """
    first = next(iter(layers.values()))
    rows, cols = first.shape[1:]
    how = {name: _by(raster) for name, raster in layers.items()} | dict(by or {})
    levels = [
        Overview(-(-rows // factor), -(-cols // factor), factor, {name: [] for name in layers})
        for factor in _factors((rows, cols), most_cells)
    ]
    for position in range(first.shape[0]):
        lazy = {
            name: shrink(raster[position], _side(levels[0]), how[name])
            for name, raster in layers.items()
        }
        frame: dict[str, np.ndarray] = dask.compute(lazy)[0]
        for level in levels:
            frame = {
                name: reduced(values, _side(level), by=how[name]) for name, values in frame.items()
            }
            for name, values in frame.items():
                level.frames[name].append(_coded(values))
    return levels


def finest(
    levels: Sequence[Overview], max_bytes: int, around: Callable[[Overview], int] = lambda _: 0
) -> Overview:
    """Choose the finest level that fits a budget; the coarsest where none does.

    Parameters
    ----------
    levels
        As from `pyramid`.
    max_bytes
        The budget.
    around
        Tells the bytes of all that is not the frames themselves.

    Returns
    -------
    Overview
    """
    return next((level for level in levels if level.bytes + around(level) <= max_bytes), levels[-1])


def pack(content: bytes) -> str:
    """Compress bytes to text that can stand in a page."""
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")


def unpack(text: str) -> bytes:
    """Give the bytes back that :func:`pack` has packed.

    Examples
    --------
    >>> unpack(pack(b"people"))
    b'people'
    """
    return zlib.decompress(base64.b64decode(text))


def _factors(shape: tuple[int, int], most_cells: int) -> list[int]:
    """How many cells become one along a side at each level, twice as many as at the one before."""
    factor = 1
    while prod(-(-length // factor) for length in shape) > most_cells:
        factor += 1
    factor = block_size(shape, -(-max(shape) // factor))
    return [factor << level for level in range(LEVELS) if max(shape) >= factor << level]


def _side(level: Overview) -> int:
    return max(level.rows, level.cols)


def _by(raster: xr.DataArray) -> By:
    return "sum" if raster.dtype.kind == "f" else "mode"


def _coded(values: np.ndarray) -> dict[str, Any]:
    return _coded_amounts(values) if values.dtype.kind == "f" else _coded_labels(values)


def _coded_labels(labels: np.ndarray) -> dict[str, Any]:
    """Number labels from 1 on, 0 = none, in as few bytes as the largest needs."""
    codes = np.maximum(labels.astype(np.int64), -1) + 1
    dtype = np.min_scalar_type(int(codes.max(initial=0)))
    content = codes.astype(dtype.newbyteorder("<")).tobytes()
    return {"codes": pack(content), "dtype": dtype.name, "labels": int(codes.max(initial=0))}


def _coded_amounts(values: np.ndarray) -> dict[str, Any]:
    """Put amounts on a logarithmic scale of a byte: about 4 % a step for people in cells."""
    high = float(np.nanmax(values, initial=0)) or 1.0
    low = min(1.0, high / 1e4)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.log(np.maximum(values.astype(float), low) / low) / np.log(high / low)
    codes = np.full(values.shape, NO_DATA, np.uint8)
    codes[values <= 0] = NOBODY
    some = values > 0
    codes[some] = FIRST + np.round(STEPS * steps[some]).astype(np.uint8)
    return {"codes": pack(codes.tobytes()), "dtype": "uint8", "low": low, "high": high}
