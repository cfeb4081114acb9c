"""What networks take: operations counted without computing them, and seconds for each, measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import dask
import numpy as np
import torch
from odc.geo.xr import xr_zeros
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from popdask.imagery.grid import CellGrid
from popdask.imagery.inference import estimate
from popdask.imagery.models import TrainedModel, build

SMALL = {"network": "PresenceCNN", "widths": (4, 8), "hidden": (8,)}
LARGE = {"network": "PresenceCNN"}
PIXELS = 100  # of a cell that is measured with


def operations(network: Mapping[str, Any], pixels: int) -> tuple[int, int]:
    """Count what a network does for one image, and what it holds; nothing is computed.

    Parameters
    ----------
    network
        As for `popdask.imagery.models.build`.
    pixels
        Rows and columns of an image.

    Returns
    -------
    operations, bytes : int
        Multiplications and additions; and of the numbers in front of and behind a layer, at most.

    Examples
    --------
    >>> operations({"network": "PresenceCNN", "widths": (4,), "hidden": (8,)}, pixels=20)[0] > 20**2
    True
    """
    with torch.device("meta"):
        module = build(network).eval()
        image = torch.empty(1, module.config["bands"], pixels, pixels)
    held = [0]

    def note(_: nn.Module, given: tuple[Any, ...], told: Any) -> None:
        tensors = [one for one in (*given, told) if isinstance(one, torch.Tensor)]
        held.append(sum(one.nbytes for one in tensors))

    for layer in module.modules():
        layer.register_forward_hook(note)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(image)
    return counter.get_total_flops(), max(held)


def measure_networks() -> dict[str, float]:
    """Estimate cells with a small and a large network on one thread, and tell the rates.

    Returns
    -------
    dict of float
        Seconds of one core for each operation, and for each pixel beside the networks.
    """
    few, many = _seconds(LARGE, 3), _seconds(SMALL, 20)
    work = [(operations(LARGE, PIXELS)[0] * 9, 9), (operations(SMALL, PIXELS)[0] * 400, 400)]
    table = np.array([[ops, cells * PIXELS**2] for ops, cells in work], float)
    each, pixel = np.linalg.solve(table, [few, many])
    return {"network per operation": float(each), "image per pixel": max(float(pixel), 0.0)}


def _seconds(network: Mapping[str, Any], side: int) -> float:
    """Time of the processor to estimate a square of cells."""
    grid = CellGrid(100.0)
    model = TrainedModel.untrained(
        "presence", network, pixels=PIXELS, cell_size=100.0, resolution=100.0 / PIXELS
    )
    box = grid.geobox(range(side), range(side), pixels=PIXELS)
    image = (xr_zeros(box, "uint8") + 9).astype("uint8")
    lazy = estimate(image, model, None, cell_size=grid, device="cpu")
    with dask.config.set(scheduler="synchronous"):
        lazy.compute()
        start = time.process_time()
        lazy.compute()
        return time.process_time() - start
