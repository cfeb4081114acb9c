"""Encode a raster on one thread: popdask's tiles beside dense layers on unfolded windows.

Every cell costs 56.1 kFLOP (147·128 + 128·64 + 64·16 multiply-adds). The bound is the rate at which
this machine multiplies float32 matrices, measured in the same run with the same thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import dask
import numpy as np
import torch
import xarray as xr

from benchmarks.machine import Machine, Row, best, duration, in_child, measured, times
from popdask.blocks.torch import fixed_arithmetic
from popdask.tracking.autoencoder import FittedEncoder, Scaling, WindowAutoencoder, place
from popdask.tracking.encoding import encode

FLOP = 2 * (147 * 128 + 128 * 64 + 64 * 16)
BATCH_SIZES = (16_384, 262_144)  # windows that the dense layers see at once


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Compare with dense layers at two sizes of batch."""
    shape = (60, 70) if quick else (1796, 1105)
    raw, encoder, tiles = prepare(shape)
    extra = memory(shape) if quick else in_child(memory, shape)
    with fixed_arithmetic(), torch.inference_mode(), dask.config.set(scheduler="sync"):
        found = tiles()[:9]
        expected = next(dense(raw, encoder, 9 * shape[1]))
        np.testing.assert_allclose(found, expected[:, : found.shape[1]], atol=1e-5)
        ours = best(tiles, 1 if quick else 3)
        share = shape[0] * shape[1] * FLOP / ours.cpu / machine.matrix_rate
        for batch_size in BATCH_SIZES:
            peer = best(lambda n=batch_size: deque(dense(raw, encoder, n), 0), 2, warm=False)
            yield Row(
                "encode, 1 thread",
                f"{shape[0]} × {shape[1]}",
                duration(ours.cpu),
                f"dense layers, {batch_size:,} windows at once, {duration(peer.cpu)}",
                times(peer.cpu / ours.cpu),
                f"{share:.0%} of the matrix product",
                f"latents equal to 1e-5; {extra / 1e6:.0f} MB extra",
            )


def prepare(shape: tuple[int, int]) -> tuple[np.ndarray, FittedEncoder, Callable[[], np.ndarray]]:
    """Draw a raster and an encoder; a function encodes it and returns the first chunk's latents."""
    raw = np.random.default_rng(0).random((3, *shape), dtype=np.float32)
    module = WindowAutoencoder(generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    encoder = FittedEncoder(module, Scaling((0, 0, 0), (1, 1, 1)), *shape)
    latent = encode(xr.DataArray(raw, dims=("channel", "y", "x")), encoder).data

    def tiles() -> np.ndarray:
        first, *others = latent.blocks.ravel()
        for block in others:  # dropped when it is done, as in a task that classifies it
            block.compute(scheduler="sync")
        return first.compute(scheduler="sync")

    return raw, encoder, tiles


def memory(shape: tuple[int, int]) -> int:
    """Bytes that encoding takes beyond the raster."""
    _, _, tiles = prepare(shape)
    return measured(tiles)[1].peak


def dense(raw: np.ndarray, encoder: FittedEncoder, batch_size: int) -> Iterator[np.ndarray]:
    """Run the dense layers on windows unfolded batch by batch; rows of latents (row, x, latent)."""
    _, height, width = raw.shape
    padded = np.pad(raw, [(0, 0), (3, 3), (3, 3)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(1, 2))
    step = max(1, batch_size // width)
    for top in range(0, height, step):
        batch = windows[:, top : top + step].reshape(3, -1, 7, 7).swapaxes(0, 1)
        cells = np.argwhere(np.ones((min(step, height - top), width), bool))
        cells[:, 0] += top
        latent = encoder.module.encode(torch.from_numpy(place(batch, cells, height, width)))
        yield latent.numpy().reshape(-1, width, latent.shape[-1])
