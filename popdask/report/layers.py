"""The layers of a report's map: what their colours mean, in light and in dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from popdask.figures import CLASSES, NO_DATA, NOBODY
from popdask.report.overview import Overview

#: Few people are near to the page's own colour, many stand out from it.
RAMPS = {"light": colormaps["viridis_r"], "dark": colormaps["viridis"]}
BACKGROUNDS = {
    "light": {"nobody": NOBODY, "noData": NO_DATA},
    "dark": {"nobody": "#20242a", "noData": "#11161c"},
}


@dataclass(frozen=True)
class Layer:
    """A layer of the map."""

    name: str
    """Its name within the store."""
    title: str
    """What the page calls it."""
    kind: Literal["amount", "label", "community"]
    """Amounts have a colour scale, labels a colour each, communities that of their track."""
    note: str
    """What one sees, in a sentence or two."""
    told: str = "#"
    """How an amount under the mouse is told, ``#`` being the number."""
    none: str = "nobody"
    """What is said where the amount is 0."""
    one: str = ""
    """What one label is called, such as ``class``."""
    linear: bool = False
    """Whether an amount's scale is linear, from 0 on; otherwise it is logarithmic."""
    ends: tuple[float, float] | None = None
    """Ends of an amount's scale; by default those of the data."""
    by: Literal["max", "sum", "mode"] | None = None
    """How cells that become one are reduced; by default amounts are added."""
    palette: Sequence[str] = CLASSES
    """The colours of labels."""
    meanings: Mapping[int, str] = field(default_factory=dict)
    """What is known of labels, in a few words each."""


def layer_setup(layer: Layer, maps: Overview, cell: str) -> dict[str, Any]:
    """Say how the page's script draws a layer, on cells of a size."""
    setup = {key: getattr(layer, key) for key in ("name", "kind", "none", "one")}
    setup["told"] = layer.told.replace("{cell}", cell)
    if layer.kind == "amount":
        low, high = _ends(layer, maps)
        setup["scale"] = {"low": low, "high": high, "linear": layer.linear}
    if layer.kind == "label":
        setup["palette"] = list(layer.palette)
    return setup


def layer_key(layer: Layer, maps: Overview, cell: str) -> dict[str, Any]:
    """Say how the page explains a layer's colours, on cells of a size."""
    key: dict[str, Any] = {"name": layer.name, "title": layer.title, "ticks": [], "chips": []}
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


def themes() -> dict[str, dict[str, Any]]:
    """Give the colours of land and people in light and in dark."""
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
