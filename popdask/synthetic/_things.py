"""The table of things that stand on the drawn ground, and how it is filled."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np


class Form(IntEnum):
    """The forms of things; a patch lies flat on the ground and casts no shadow."""

    PATCH = 0
    FLAT = 1
    GABLE = 2
    HIP = 3
    ARC = 4
    ROCK = 5


class Layer(IntEnum):
    """What is painted over what."""

    BLOCK = 0
    GARDEN = 1
    PAVING = 2
    SMALL = 3
    MAIN = 4


HOMES = ("detached", "row", "flats", "farm")
"""The kinds of homes, by their number in the column `home`."""

ALWAYS = 10_000  # years
THING = np.dtype(
    [
        ("x", "f8"),
        ("y", "f8"),
        ("angle", "f8"),
        ("length", "f8"),
        ("width", "f8"),
        ("height", "f8"),
        ("form", "i8"),
        ("material", "i8"),
        ("shade", "f8"),
        ("layer", "i8"),
        ("born", "i8"),
        ("gone", "i8"),
        ("home", "i8"),
        ("people", "i8"),
        ("expected", "f8"),
    ]
)
"""Rectangles, the length along `angle`, in metres and radians; `home` is −1 without people."""


def make(x: Any, y: Any, length: Any, width: Any, **columns: Any) -> np.ndarray:
    """Make a table of things from columns, of which numbers stand for all things."""
    columns = {"x": x, "y": y, "length": length, "width": width, **columns}
    table = np.zeros(np.broadcast_shapes((1,), *map(np.shape, columns.values())), THING)
    table["shade"], table["home"] = 1.0, -1
    table["born"], table["gone"] = -ALWAYS, ALWAYS
    for name, column in columns.items():
        table[name] = column
    return table


def join(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Join tables, of which there may be none."""
    return np.concatenate([np.empty(0, THING), *tables])


def settle(tables: Sequence[np.ndarray], x: float, y: float, angle: float) -> np.ndarray:
    """Join tables drawn around the origin, turn them and move them to their place."""
    table = join(tables)
    table["x"], table["y"] = turned(table["x"], table["y"], x, y, angle)
    table["angle"] += angle
    return table


def turned(u: Any, v: Any, x: float, y: float, angle: float) -> tuple[Any, Any]:
    """Turn points around the origin and move them to (x, y)."""
    c, s = np.cos(angle), np.sin(angle)
    return x + u * c - v * s, y + u * s + v * c
