"""Estimate the cells of one tile: the array kernel under `popdask.imagery.inference`.

The trick is that cells pass one by one. Which kernel torch takes for a row of a batch, and so the
last bits of its answer, follows from the shape of the batch and the place in it (measured: answers
differ in batches of 5 or 7), and a cell at p = 0.5 hangs on the last bit. On a CPU one image at a
time is also the quicker way where cells are large: what passes between two layers of 200 × 200
pixels then stays in the cache. A GPU wants batches; there they are all of one shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popdask.devices import pick_device
from popdask.imagery.models import TrainedModel

CALL_BYTES = 2**24  # of pixels given to a model at once
BATCH_PIXELS = 1024**2  # of one band: keeps a GPU busy; more would leave more of a batch empty


@dataclass(frozen=True)
class Rule:
    """How a tile is estimated."""

    pixels: int
    """Rows and columns of a cell."""
    ring: int
    """Pixels around the tile."""
    nodata: Any
    """What pixels without data hold."""
    threshold: float
    """Probability of presence above which people are counted."""
    batch_size: int
    """Cells in a batch on a GPU, at most."""
    device: str
    """A torch device, or "auto"."""


def estimate_tile(
    tile: NDArray,
    valid: NDArray[np.bool_],
    presence: TrainedModel | None,
    count: TrainedModel | None,
    rule: Rule,
) -> NDArray[np.float32]:
    """Estimate presence and people (2, y, x) of the cells in a tile (band, row, col) with its ring.

    `valid` (row, col) goes without the ring. Cells without data are NaN, and so is what has no
    model.
    """
    usable = _usable(tile, valid, rule)
    if tile.dtype.kind == "f":
        tile = np.nan_to_num(tile, nan=0.0)  # only the ring of a usable cell can lack data
    out = np.full((2, *usable.shape), np.nan, np.float32)
    cells = np.argwhere(usable)
    if presence is not None:
        chance = _predict(presence, tile, cells, rule)
        out[0, *cells.T] = chance
        out[1, *cells.T] = 0
        cells = cells[chance > rule.threshold]
    if count is not None:
        out[1, *cells.T] = _predict(count, tile, cells, rule)
    return out


def _usable(tile: NDArray, valid: NDArray[np.bool_], rule: Rule) -> NDArray[np.bool_]:
    """Find the cells (y, x) of which each pixel has data and no edge is padding."""
    p, (height, width) = rule.pixels, valid.shape
    own = tile[:, rule.ring : rule.ring + height, rule.ring : rule.ring + width]
    down, across = height // p, width // p
    full = np.asarray(valid.reshape(down, p, across, p).all((1, 3)))
    for line in (0, p - 1):
        rows = _is_empty(own[:, line::p], rule.nodata).reshape(-1, down, across, p)
        columns = _is_empty(own[:, :, line::p], rule.nodata).reshape(-1, down, p, across)
        full &= ~rows.all((0, 3)) & ~columns.all((0, 2))
    return full


def _is_empty(pixels: NDArray, nodata: Any) -> NDArray[np.bool_]:
    return np.isnan(pixels) if np.isnan(nodata) else pixels == nodata


def _predict(
    model: TrainedModel, tile: NDArray, cells: NDArray[np.int64], rule: Rule
) -> NDArray[np.float32]:
    """Predict some cells (n, 2) of a tile, few enough at a time to cut them out."""
    span, rim = model.pixels, rule.ring - model.context * rule.pixels
    step = batch_of(model, rule.batch_size, rule.device)
    image_bytes = len(tile) * span**2 * tile.itemsize
    many = step * max(1, CALL_BYTES // (step * image_bytes))
    out = np.empty(len(cells), np.float32)
    for start in range(0, len(cells), many):
        corners = cells[start : start + many] * rule.pixels + rim
        images = np.stack([tile[:, r : r + span, c : c + span] for r, c in corners])
        out[start : start + many] = model.predict(images, device=rule.device, batch_size=step)
    return out


def batch_of(model: TrainedModel, batch_size: int, device: str) -> int:
    """Say how many cells make a batch: one on a CPU, what keeps it busy on a GPU.

    Examples
    --------
    >>> model = TrainedModel.untrained("count", {"network": "CountCNN"}, pixels=100)
    >>> batch_of(model, 64, "cpu")
    1
    """
    if pick_device(device).type == "cpu":
        return 1
    return max(1, min(batch_size, BATCH_PIXELS // model.pixels**2))
