"""Estimate a mosaic beside a bare torch loop over the same cells, on one thread.

The loop has the cells in memory, cut and stacked, and does nothing but normalise them and pass them
through the models: presence for all, counts where p > 0.5. It is run with batches of 64, as one
writes it first, and one by one; popdask folds batch norms into convolutions, and passes small cells
in batches, large ones one by one. Both are timed in turn, so that a busy machine is the same to
both. An eighth of the cells is inhabited, as in
Denmark, by the choice of the last biases of networks with random weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import dask
import dask.array as da
import numpy as np
import torch
import xarray as xr
from odc.geo.xr import xr_coords

from benchmarks.machine import Machine, Row, duration, in_child, measured, timed, times
from benchmarks.quality import COUNT, PRESENCE
from popdask.blocks.torch import fixed_arithmetic
from popdask.imagery.estimate import estimate
from popdask.imagery.grid import CellGrid
from popdask.imagery.model import TrainedModel

CELL, PIXEL = 100.0, 0.5
PIXELS = int(CELL / PIXEL)
CHUNK = 8  # cells along a side of a chunk
BATCH_SIZES = (64, 1)
Models = tuple[TrainedModel, TrainedModel]


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Compare with the loop at two sizes of batch; then the memory of two sizes of mosaic."""
    small = drawn_country_models(25)
    yield from _beside_loop(small, 25, 8 if quick else 64)
    yield from _beside_loop(small_models() if quick else full_models(), 200, 3 if quick else 30)
    sides = (8, 16) if quick else (48, 96)
    with freed_at_once():
        small, large = (memory(side) if quick else in_child(memory, side) for side in sides)
    yield Row(
        "estimate, memory",
        " and ".join(f"{side} × {side} cells" for side in sides),
        f"{small / 1e6:.0f} and {large / 1e6:.0f} MB",
        limit=f"mosaics of {pixels_of(sides[0]) / 1e6:.0f} and {pixels_of(sides[1]) / 1e6:.0f} MB",
        also="beyond what was held before; small networks, chunks drawn as they are read",
    )


def _beside_loop(models: Models, pixels: int, side: int) -> Iterator[Row]:
    """Estimate side × side cells, and compare with the loop at two sizes of batch."""
    cells, image = drawn(side, pixels)
    inhabit(models, cells[:64])
    for batch_size in BATCH_SIZES:
        found = estimate(image, *models, cell_size=CELL)
        with dask.config.set(scheduler="sync"):
            raster, ours = timed(found.compute)
        expected, peer = timed(bare_loop, cells, models, batch_size)
        close = 1e-5 * np.ptp(expected)
        np.testing.assert_allclose(raster.population.values.ravel(), expected, rtol=0, atol=close)
        yield Row(
            "estimate, 1 thread",
            f"{len(cells)} cells of {pixels} px",
            f"{duration(ours.cpu)}, {len(cells) / ours.cpu:,.1f} cells/s",
            f"bare torch loop, batches of {batch_size}, {duration(peer.cpu)}",
            times(peer.cpu / ours.cpu),
            f"{peer.cpu / ours.cpu:.0%} of the loop's rate",
            f"people equal to 1e-5 of the range; {int((expected > 0).sum())} cells inhabited",
        )


def drawn_country_models(pixels: int) -> Models:
    """The small networks of `benchmarks.quality`, with random weights."""
    presence, count = {"network": "PresenceCNN"}, {"network": "CountCNN"}
    return _models({**presence, **PRESENCE.network}, {**count, **COUNT.network}, pixels)


def full_models() -> Models:
    """The classifier and the regressor of 100 m cells, with random weights."""
    return _models({"network": "PresenceCNN"}, {"network": "CountCNN"})


def small_models() -> Models:
    """Two networks that take no time."""
    presence = {"network": "PresenceCNN", "widths": (4, 8), "hidden": (8,)}
    return _models(presence, {"network": "CountCNN", "blocks": 2, "base": 4, "hidden": 8})


def _models(presence: dict, count: dict, pixels: int = PIXELS) -> Models:
    known = {"pixels": pixels, "cell_size": CELL, "resolution": CELL / pixels}
    return (
        TrainedModel.untrained("presence", presence, **known),
        TrainedModel.untrained("count", count, **known),
    )


def drawn(side: int, pixels: int) -> tuple[np.ndarray, xr.DataArray]:
    """Draw cells (n, 1, row, col) row by row, and the mosaic that they come from, in chunks."""
    rng = np.random.default_rng(0)
    light = rng.integers(30, 200, (side * side, 1, 1, 1), dtype=np.uint8)
    cells = light + rng.integers(0, 50, (side * side, 1, pixels, pixels), dtype=np.uint8)
    mosaic = cells.reshape(side, side, pixels, pixels).swapaxes(1, 2)
    mosaic = mosaic.reshape(1, side * pixels, side * pixels)
    return cells, _placed(
        da.from_array(mosaic, chunks=(1, CHUNK * pixels, CHUNK * pixels)), side, pixels
    )


def _placed(mosaic: da.Array, side: int, pixels: int = PIXELS) -> xr.DataArray:
    box = CellGrid(CELL).geobox(range(side), range(side), pixels=pixels)
    return xr.DataArray(mosaic, dims=("band", "y", "x"), coords=xr_coords(box))


def inhabit(models: Models, cells: np.ndarray) -> tuple:
    """Move the last biases, so that about an eighth of the cells is inhabited by some people."""
    presence, count = models
    with torch.inference_mode():
        raw = torch.from_numpy(cells)
        logits = presence.module(presence.normalisation(raw)).sort().values
        presence.module.head[-1].bias -= logits[-(len(cells) // 8 + 2) :][:2].mean()
        count.module.head[-1].bias += 5 - count.module(count.normalisation(raw[:8])).mean()
    return models


def bare_loop(cells: np.ndarray, models: Models, batch_size: int) -> np.ndarray:
    """Count people as one would write it with torch alone."""
    presence, count = models
    people = torch.zeros(len(cells))
    with fixed_arithmetic(1), torch.inference_mode():
        for start in range(0, len(cells), batch_size):
            raw = torch.from_numpy(cells[start : start + batch_size])
            inhabited = torch.sigmoid(presence.module(presence.normalisation(raw))) > 0.5
            if inhabited.any():
                counted = count.module(count.normalisation(raw[inhabited])).clamp(min=0)
                people[start : start + len(raw)][inhabited] = counted
    return people.numpy()


def memory(side: int) -> int:
    """Bytes that estimating a mosaic takes, which is drawn chunk by chunk."""
    image, models = unread(side), small_models()
    with dask.config.set(scheduler="sync"):
        estimate(unread(CHUNK), *models, cell_size=CELL).compute()  # to warm up
        found = estimate(image, *models, cell_size=CELL)
        return measured(lambda: found.to_dataarray().mean().compute())[1].peak


@contextmanager
def freed_at_once() -> Iterator[None]:
    """Have new processes give arrays back when they are freed, so that only what is held counts."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    try:
        yield
    finally:
        del os.environ["MALLOC_MMAP_THRESHOLD_"]


def unread(side: int) -> xr.DataArray:
    """A mosaic of side × side cells of noise that lies nowhere in memory."""
    size, chunk = int(side * CELL / PIXEL), int(CHUNK * CELL / PIXEL)
    noise = da.random.default_rng(0)
    mosaic = noise.integers(1, 255, (1, size, size), "uint8", chunks=(1, chunk, chunk))
    return _placed(mosaic, side)


def pixels_of(side: int) -> int:
    """Bytes of a mosaic of side × side cells."""
    return int(side * CELL / PIXEL) ** 2
