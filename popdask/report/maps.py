"""The map of a report: its layers, and every frame of them as fine as a budget of bytes allows.

Frames are read once, chunk by chunk, at the finest level that a browser can draw; every coarser
level of the pyramid comes from the one before it. People of cells that become one are added, and
labels are the commonest one. All levels are packed at once and the finest that fits is kept, so
that a large region costs no second reading.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

import dask
import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import to_hex

from popdask.plot.style import (
    CLASSES,
    NO_DATA,
    NOBODY,
    By,
    Grid,
    block_size,
    period,
    reduced,
    shrink,
)

MOST_CELLS = 4_000_000  # of a frame; phones refuse larger canvases than 16 million
LEVELS = 6
NO_DATA_CODE, NOBODY_CODE, FIRST = (
    0,
    1,
    2,
)  # the codes of amounts: the rest are steps of a log scale
STEPS = 255 - FIRST
#: Few people are near to the page's own colour, many stand out from it.
RAMPS = {"light": colormaps["viridis_r"], "dark": colormaps["viridis"]}
BACKGROUNDS = {
    "light": {"nobody": NOBODY, "noData": NO_DATA},
    "dark": {"nobody": "#20242a", "noData": "#11161c"},
}


@dataclass(frozen=True)
class Overview:
    """The frames of all layers, at one level of the pyramid."""

    rows: int
    cols: int
    factor: int  # cells of the raster along a side of one of the map's
    frames: Mapping[str, list[dict[str, Any]]]
    """By layer: packed ``codes`` and their ``dtype``; of amounts the ends of the scale, ``low`` and
    ``high``; of labels how many there are, ``labels``."""

    @property
    def bytes(self) -> int:
        """Size of all frames within the page."""
        return sum(len(frame["codes"]) for frames in self.frames.values() for frame in frames)

    def without_codes(self) -> Overview:
        """Give what is said of the frames, without the frames."""
        described = {
            name: [{**frame, "codes": ""} for frame in frames]
            for name, frames in self.frames.items()
        }
        return replace(self, frames=described)


def pyramid(
    layers: Mapping[str, xr.DataArray],
    by: Mapping[str, By] | None = None,
    *,
    most_cells: int = MOST_CELLS,
) -> list[Overview]:
    """Reduce the frames of layers, level by level."""
    first = next(iter(layers.values()))
    rows, cols = first.shape[1:]
    how: dict[str, By] = {
        name: "sum" if raster.dtype.kind == "f" else "mode" for name, raster in layers.items()
    }
    how |= by or {}
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
                coded = _coded_amounts if values.dtype.kind == "f" else _coded_labels
                level.frames[name].append(coded(values))
    return levels


def finest(
    levels: Sequence[Overview], max_bytes: int, around: Callable[[Overview], int] = lambda _: 0
) -> Overview:
    """Choose the finest level that fits a budget; the coarsest where none does."""
    return next((level for level in levels if level.bytes + around(level) <= max_bytes), levels[-1])


def pack(content: bytes) -> str:
    """Compress bytes to text that can stand in a page."""
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")


def unpack(text: str) -> bytes:
    """Return the bytes that :func:`pack` has packed."""
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


def _coded_labels(labels: np.ndarray) -> dict[str, Any]:
    """Number labels from 1 on, 0 = none, in as few bytes as the largest needs."""
    codes = np.maximum(labels.astype(np.int64), -1) + 1
    dtype = np.min_scalar_type(int(codes.max(initial=0)))
    content = codes.astype(dtype.newbyteorder("<")).tobytes()
    coded = {"codes": pack(content), "dtype": dtype.name, "labels": int(codes.max(initial=0))}
    return coded | {
        "cells": int((codes > 0).sum()),
        "shown": f"{len(np.unique(codes[codes > 0])):,}",
    }


def _coded_amounts(values: np.ndarray) -> dict[str, Any]:
    """Put amounts on a logarithmic scale of a byte: about 4 % a step for people in cells."""
    high = float(np.nanmax(values, initial=0)) or 1.0
    low = min(1.0, high / 1e4)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.log(np.maximum(values.astype(float), low) / low) / np.log(high / low)
    codes = np.full(values.shape, NO_DATA_CODE, np.uint8)
    codes[values <= 0] = NOBODY_CODE
    some = values > 0
    codes[some] = FIRST + np.round(STEPS * steps[some]).astype(np.uint8)
    most = np.nanmax(values, initial=0)
    coded = {"codes": pack(codes.tobytes()), "dtype": "uint8", "low": low, "high": high}
    return coded | {
        "cells": int(some.sum()),
        "shown": f"{most:,.4g}" if most < 1000 else f"{most:,.0f}",
    }


@dataclass(frozen=True)
class Layer:
    """A layer of the map."""

    name: str  # its name within the store
    title: str  # what the page calls it
    kind: Literal["amount", "label", "places"]
    """Amounts have a colour scale, labels a colour each, places that of their track."""
    note: str  # what one sees, in a sentence or two
    tooltip: str = "#"
    """How an amount under the mouse is shown, ``#`` being the number."""
    none: str = "nobody"  # what is said where the amount is 0
    one: str = ""  # what one label is called, such as ``class``
    linear: bool = False
    """Whether an amount's scale is linear, from 0 on; otherwise it is logarithmic."""
    ends: tuple[float, float] | None = None
    """Ends of an amount's scale; by default those of the data."""
    by: Literal["max", "sum", "mode"] | None = None
    """How cells that become one are reduced; by default amounts are added."""
    palette: Sequence[str] = CLASSES  # the colours of labels
    meanings: Mapping[int, str] = field(default_factory=dict)
    """What is known of labels, in a few words each."""


def layer_setup(layer: Layer, maps: Overview, cell: str) -> dict[str, Any]:
    """Say how the page's script draws a layer, on cells of a size."""
    setup = {key: getattr(layer, key) for key in ("name", "kind", "none", "one")}
    setup["tooltip"] = layer.tooltip.replace("{cell}", cell)
    if layer.kind == "amount":
        low, high = _ends(layer, maps)
        setup["scale"] = {"low": low, "high": high, "linear": layer.linear}
    if layer.kind == "label":
        setup["palette"] = list(layer.palette)
    return setup


def layer_key(layer: Layer, maps: Overview, cell: str) -> dict[str, Any]:
    """Say how the page explains a layer's colours, on cells of a size."""
    key: dict[str, Any] = {
        "name": layer.name,
        "title": layer.title,
        "ticks": [],
        "chips": [],
        "none": layer.none,
    }
    key["note"] = layer.note.replace("{cell}", cell)
    if layer.kind == "amount":
        key["ticks"] = _ticks(*_ends(layer, maps), linear=layer.linear)
        key |= {theme: ", ".join(_ramp(theme, 12)) for theme in RAMPS}
    if layer.kind == "label":
        numbers = range(max(frame["labels"] for frame in maps.frames[layer.name]))
        key["chips"] = [
            {
                "colour": layer.palette[number % len(layer.palette)],
                "text": f"{layer.one} {number}{layer.meanings.get(number, '')}",
            }
            for number in numbers
        ]
    return key


def map_table(layers: Sequence[Layer], maps: Overview, span: Sequence[str]) -> dict[str, Any]:
    """Put what the map shows into a table: a row for each layer and frame."""
    rows = [
        (layer.title, label, f"{maps.rows * maps.cols:,}", f"{frame['cells']:,}", frame["shown"])
        for layer in layers
        for label, frame in zip(span, maps.frames[layer.name], strict=True)
    ]
    return {
        "head": ("layer", period(span), "cells of the map", "coloured", "most, or kinds"),
        "rows": rows,
    }


def themes() -> dict[str, dict[str, Any]]:
    """Return the colours of land and people in light and in dark."""
    return {theme: {**BACKGROUNDS[theme], "ramp": _ramp(theme, 128)} for theme in RAMPS}


def _ends(layer: Layer, maps: Overview) -> tuple[float, float]:
    if layer.ends is not None:
        return layer.ends
    frames = maps.frames[layer.name]
    high = max(float(frame["high"]) for frame in frames)
    return min(float(frame["low"]) for frame in frames), max(high, 10.0 * min(1.0, high))


def _ticks(low: float, high: float, *, linear: bool) -> list[Mapping[str, Any]]:
    if linear:
        values = np.linspace(low, high, 5)
        at = np.linspace(0, 100, 5)
    else:
        powers = np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1)
        values = 10.0**powers
        at = 100 * np.log(values / low) / np.log(high / low)
    return [
        {"at": round(float(place), 1), "text": f"{value:,.0f}" if value >= 1 else f"{value:g}"}
        for value, place in zip(values, at, strict=True)
    ]


def _ramp(theme: str, steps: int) -> list[str]:
    return [to_hex(RAMPS[theme](share)) for share in np.linspace(0, 1, steps)]


@dataclass(frozen=True)
class Content:
    """What a report shows, apart from the pictures and the record that all reports have."""

    lead: str  # what was done, in a sentence
    numbers: list[dict[str, str]]  # what was found, in a few numbers: ``value`` and ``what`` it is
    map_note: str  # how to use the map
    layers: list[Layer]  # the layers, the first of which is shown first
    rasters: Mapping[str, xr.DataArray]  # the layers' rasters (time, y, x)
    grid: Grid  # where the cells lie
    times: list[str]  # the frames' names
    milliseconds: list[float]  # the frames' times, as Bokeh has them
    plots: list[Any]  # Bokeh's plots, ``map`` among them
    filling: Mapping[str, Any] = field(default_factory=dict)  # what else the template shows
    tables: Mapping[str, Any] = field(default_factory=dict)  # tables for the script
    colours: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The colour of each track, by the layer of places."""
    followed: list[dict[str, str]] = field(default_factory=list)
    """The layers of places that are followed through time, and what ``one`` and ``many`` are."""


def cell_words(grid: Grid, factor: int) -> str:
    """Say how large a cell of the map is, where it stands for some of the raster's."""
    width, height = (side * factor for side in grid.cell)
    if max(width, height) < 1:
        return f"{np.round(1000 * width):,.0f} × {np.round(1000 * height):,.0f} m"
    return f"{width:.3g} × {height:.3g} km"
