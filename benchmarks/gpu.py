"""A graphics card beside the processor, and popdask on the card beside a bare loop.

Without a card all rows are of the processor alone, at tiny sizes, so that the part is known to run
on the day that there is one. Steps and cells are told by the clock on the wall, since a card works
while the processor waits; on a processor by its own seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace

import dask
import numpy as np
import torch
import xarray as xr

from benchmarks.machine import Machine, Row, times
from popdask.blocks.torch import fixed_arithmetic
from popdask.imagery.cells import make_cells
from popdask.imagery.grid import CellGrid
from popdask.imagery.loading import TrainingConfig
from popdask.imagery.model import Normalisation, TrainedModel, build
from popdask.imagery.training import train
from popdask.tracking.autoencoder import FittedEncoder, Scaling, WindowAutoencoder
from popdask.tracking.encoding import encode
from popdask.workflow.population_stages import STEP, operations

SHORT = {"epochs": 3, "batch_size": 32, "rate": 1e-3, "jitter": 0.0, "flips": "none"}
SMALL = {
    "presence": {"network": "PresenceCNN", "widths": (8, 16), "hidden": (16,)},
    "count": {"network": "CountCNN", "blocks": 2, "base": 8, "hidden": 16, "extra": False},
}
FULL = {"presence": {"network": "PresenceCNN"}, "count": {"network": "CountCNN"}}
CLOSE = {"losses": 0.05, "people": 0.02, "latents": 1e-2}  # of the range; steps are in bfloat16


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Compare answers, then rates; then the share of the card's matrix rate."""
    card = torch.cuda.is_available()
    device, tiny = "cuda" if card else "cpu", quick or not card
    where = torch.cuda.get_device_name() if card else "no GPU: the processor, at tiny sizes"
    cells = world(128 if tiny else 4096, 32 if tiny else 200)
    networks = SMALL if tiny else FULL
    yield from _agreement(cells, device, where)
    rate = _matrix_rate(device, 512 if tiny else 8192)
    yield Row("gpu, matrix product", where, f"{rate / 1e12:.2f} TFLOP/s in bfloat16")
    for kind in networks:
        yield _training(cells, kind, networks[kind], device, where, rate)
        yield _answers(cells, kind, networks[kind], device, where, rate)


def world(count: int, pixels: int) -> xr.Dataset:
    """Cells that are brighter where more people live, an eighth of them to score on."""
    rng, place = np.random.default_rng(0), np.arange(count)
    people = rng.integers(0, 5, count).astype(float)
    images = rng.integers(0, 50, (count, 1, pixels, pixels)) + 40 * people[:, None, None, None]
    cells = make_cells(images.astype(np.uint8), people, place, place, CellGrid(100.0))
    split = np.where(place % 8 == 0, 1, np.where(place % 8 == 1, 2, 0)).astype(np.int8)
    return cells.assign_coords(split=("cell", split))


def _agreement(cells: xr.Dataset, device: str, where: str) -> Iterator[Row]:
    """Losses of a training, people, and latents: on the processor, and on the card."""
    small = cells.isel(cell=slice(0, 256))
    config = TrainingConfig(SMALL["count"], threads=1, **SHORT)
    pair = [train(small, "count", config, device=place) for place in ("cpu", device)]
    losses = [[row["training"] for row in model.history] for model in pair]
    images = small["images"].values
    people = [pair[0].predict(images, device=place) for place in ("cpu", device)]
    raw = xr.DataArray(
        np.random.default_rng(0).random((3, 60, 70), dtype=np.float32), dims=("channel", "y", "x")
    )
    module = WindowAutoencoder(generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    encoder = FittedEncoder(module, Scaling((0, 0, 0), (1, 1, 1)), 60, 70)
    with dask.config.set(scheduler="sync"):
        latents = [encode(raw, encoder, device=place).values for place in ("cpu", device)]
    for name, (one, other) in {"losses": losses, "people": people, "latents": latents}.items():
        apart = float(np.max(np.abs(np.subtract(one, other))) / max(np.ptp(one), 1e-9))
        if apart > CLOSE[name]:
            raise AssertionError(f"{name} differ by {apart:.2g} of their range on {device}")
        yield Row(f"gpu, {name}", where, f"within {apart:.1g} of their range", "the processor")


def _training(
    cells: xr.Dataset, kind: str, network: dict, device: str, where: str, rate: float
) -> Row:
    """Cells per second of a training beside a loop of torch alone, one epoch from three."""
    # Neither mirrors images or varies their light, so that both do the same work.
    config = TrainingConfig(network, threads=1, **SHORT)
    known = {"bands": 1, "pixels": cells.sizes["row"], "ring": 0}
    config = replace(config, network=config.network_for(kind, **known))
    ends: list[float] = []
    clock = _clock(device)
    train(cells, kind, config, device=device, progress=lambda _: ends.append(clock()))
    ours = (ends[-1] - ends[0]) / (len(ends) - 1)
    chosen = np.ones(cells.sizes["cell"], bool) if kind == "presence" else cells.people.values > 0
    sides = [np.flatnonzero(chosen & (cells.split.values == side)) for side in (0, 2)]
    bare = _bare_epoch(cells, kind, config, device, sides)
    learned = len(sides[0])
    return Row(
        f"gpu, training of {kind}",
        f"{learned} cells of {cells.sizes['row']} px, {where}",
        f"{learned / ours:,.0f} cells/s, {learned / ours / config.batch_size:,.1f} steps/s",
        f"bare torch loop, {learned / bare:,.0f} cells/s",
        times(bare / ours),
        f"{STEP * operations(config.network, known['pixels'])[0] * learned / ours / rate:.0%} "
        "of the matrix product, with looking at the cells to choose by",
    )


def _bare_epoch(
    cells: xr.Dataset, kind: str, config: TrainingConfig, device: str, sides: list[np.ndarray]
) -> float:
    """Seconds of an epoch, as one would write it with torch alone; the second of two."""
    images, people = cells["images"].values, cells["people"].values
    module = build(config.network).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.rate, fused=True)
    scaling, clock = Normalisation.half("uint8"), _clock(device)
    targets = ((people > 0) if kind == "presence" else people).astype(np.float32)
    losses = torch.nn.functional
    loss_of = losses.binary_cross_entropy_with_logits if kind == "presence" else losses.mse_loss

    def loss(picks: np.ndarray) -> torch.Tensor:
        batch = scaling(torch.from_numpy(images[picks]).to(device))
        mixed = torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()
        with mixed:
            said = module(batch)
        return loss_of(said.float(), torch.from_numpy(targets[picks]).to(device))

    spent = 0.0
    with fixed_arithmetic(1):
        for _ in range(2):
            start = clock()
            module.train()
            for picks in _batches(np.random.default_rng(0).permutation(sides[0]), config):
                optimizer.zero_grad()
                loss(picks).backward()
                optimizer.step()
            module.eval()
            with torch.no_grad():
                sum(loss(picks) for picks in _batches(sides[1], config))
            spent = clock() - start
    return spent


def _batches(chosen: np.ndarray, config: TrainingConfig) -> list[np.ndarray]:
    return np.split(chosen, range(config.batch_size, len(chosen), config.batch_size))


def _answers(
    cells: xr.Dataset, kind: str, network: dict, device: str, where: str, rate: float
) -> Row:
    """Cells per second of a model's answers beside the bare network on what lies on the card."""
    pixels = cells.sizes["row"]
    model = TrainedModel.untrained(kind, network, pixels=pixels)
    images, size = cells["images"].values, 64
    ours = _seconds(device, lambda: model.predict(images, device=device, batch_size=size))
    batch = model.normalisation(torch.from_numpy(images[:size]).to(device))
    module = model.on(device)

    def bare() -> None:
        with torch.inference_mode(), fixed_arithmetic(1):
            for _ in range(0, len(images), size):
                module(batch)

    alone = _seconds(device, bare)
    return Row(
        f"gpu, answers of {kind}",
        f"{len(images)} cells of {pixels} px, {where}",
        f"{len(images) / ours:,.0f} cells/s",
        f"bare network, images there already, {len(images) / alone:,.0f} cells/s",
        times(alone / ours),
        f"{operations(model.config, pixels)[0] * len(images) / ours / rate:.0%} of the same",
    )


def _matrix_rate(device: str, side: int) -> float:
    """Operations per second of a product of square matrices in bfloat16."""
    matrix = torch.rand(side, side, device=device).to(torch.bfloat16)
    return 2 * side**3 / _seconds(device, lambda: torch.mm(matrix, matrix))


def _seconds(device: str, work: Callable[[], object]) -> float:
    """The faster of two runs after one to warm up."""
    clock, spent = _clock(device), list[float]()
    for _ in range(3):
        start = clock()
        work()
        spent.append(clock() - start)
    return min(spent[1:])


def _clock(device: str) -> Callable[[], float]:
    """Seconds on the wall once a card has done what it was given, else of the processor."""

    def waited() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return waited if device == "cuda" else time.process_time
