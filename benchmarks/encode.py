"""Encode a raster on one thread: popdask's tiles beside dense layers on unfolded windows.

Every cell costs 56.1 kFLOP (147·128 + 128·64 + 64·16 multiply-adds). The bound is the rate at which
this machine multiplies float32 matrices, measured in the same run with the same thread.

    python benchmarks/encode.py [cells along a side]
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dask
import numpy as np
import torch
import xarray as xr

from popdask.tracking.autoencoder import FittedEncoder, WindowAutoencoder
from popdask.tracking.encoding import encode
from popdask.tracking.fitted import Scaling, place
from popdask.tracking.network import fixed_arithmetic

FLOP = 2 * (147 * 128 + 128 * 64 + 64 * 16)
ROUNDS = 5
BATCHES = (16_384, 262_144)  # windows that the dense layers see at once


def main(side: int) -> None:
    """Print cells per second, share of the machine's matrix products, and memory."""
    raw = np.random.default_rng(0).random((3, side, side), dtype=np.float32)
    features = xr.DataArray(raw, dims=("channel", "y", "x"))
    module = WindowAutoencoder(generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    encoder = FittedEncoder(module, Scaling((0, 0, 0), (1, 1, 1)), side, side)
    matrix = torch.rand(2048, 2048)
    product = torch.empty_like(matrix)
    latent = encode(features, encoder).data

    def tiles() -> None:
        # Each chunk is dropped when it is done, as in a pipeline that classifies it in the task.
        for block in latent.blocks.ravel():
            block.compute(scheduler="sync")

    runs: dict[str, Callable[[], object]] = {
        "matrix product": lambda: torch.mm(matrix, matrix, out=product),
        **{f"dense, {n:,} at once": partial(dense, raw, encoder, n) for n in BATCHES},
        "popdask": tiles,
    }
    best = dict.fromkeys(runs, np.inf)
    with fixed_arithmetic(), torch.inference_mode(), dask.config.set(scheduler="sync"):
        for _ in range(ROUNDS):
            for name, run in runs.items():
                best[name] = min(best[name], seconds(run))
        extra = peak(tiles)
    bound = 2 * 2048**3 / best["matrix product"]
    cells = side * side
    print(f"matrix product, 2048 x 2048, 1 thread: {bound / 1e9:.1f} GFLOP/s")
    print(f"raster: {side} x {side} cells")
    print(f"{'':<24}{'cells/s':>12}{'of bound':>10}{'popdask is':>12}")
    for name in list(runs)[1:]:
        rate, ahead = cells / best[name], best[name] / best["popdask"]
        print(f"{name:<24}{rate:>12,.0f}{rate * FLOP / bound:>10.0%}{ahead:>10.1f} x")
    print(f"memory beyond the raster: {extra:.0f} MB more at the peak")


def dense(raw: np.ndarray, encoder: FittedEncoder, batch_size: int) -> None:
    """Run the dense layers on windows unfolded batch by batch."""
    _, height, width = raw.shape
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(raw, [(0, 0), (3, 3), (3, 3)]), (7, 7), axis=(1, 2)
    )
    rows = max(1, batch_size // width)
    for top in range(0, height, rows):
        batch = windows[:, top : top + rows].reshape(3, -1, 7, 7).swapaxes(0, 1)
        cells = np.argwhere(np.ones((min(rows, height - top), width), bool))
        cells[:, 0] += top
        encoder.module.encode(torch.from_numpy(place(batch, cells, height, width)))


def seconds(run: Callable[[], object]) -> float:
    """Time one run, in seconds of this thread's processor: others' work counts less."""
    start = time.thread_time()
    run()
    return time.thread_time() - start


def peak(run: Callable[[], object]) -> float:
    """Megabytes by which a run lifts this process's memory at its peak (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is held now
    before = held("VmHWM")
    run()
    return held("VmHWM") - before


def held(kind: str) -> float:
    """Read a line of this process's memory account, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith(kind))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
