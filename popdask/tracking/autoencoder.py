"""Train an autoencoder of windows: 7 × 7 cells of people and motion in 16 numbers.

The network and its training follow the window autoencoder of olley102's PopulationCountClustering:
the people and the flow (u, v) of the 7 × 7 cells around a cell, scaled to [0, 1], together with the
window's place in the raster, pass through 128 and 64 units to a code of 16; the way back gives the
window without its place.

Fitting is two pure halves, so that each can run where it is cheap: `training_windows` draws cells
and reads their windows from the chunks where they lie, `train` turns these plain arrays into a
`FittedEncoder`, on one thread or one GPU, so that the same seed gives the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from xarray import DataArray

from popdask.blocks.sampling import gather_windows, in_order, merge_ranked, rank_cells
from popdask.blocks.sums import first_cells, tree_reduce
from popdask.blocks.torch import fixed_arithmetic, pick_device
from popdask.errors import InputError
from popdask.tracking.encoder import (
    WINDOW,
    EncoderConfig,
    FittedEncoder,
    Scaling,
    WindowAutoencoder,
    check_features,
    place,
    usable_cells,
)

__all__ = [
    "EncoderConfig",
    "FittedEncoder",
    "WindowAutoencoder",
    "fit_autoencoder",
]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Windows to train on: plain arrays that can travel to any worker."""

    windows: NDArray[np.float32]
    """Raw clipped features, (n, channel, 7, 7), in random order."""
    cells: NDArray[np.int64]
    """Their middle cells, (n, 2) or (n, 3)."""
    scaling: Scaling
    height: int
    width: int


def fit_autoencoder(
    features: DataArray,
    *,
    mask: DataArray | None = None,
    edge: str = "neutral",
    epochs: int = 200,
    windows_per_epoch: int = 1000,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "auto",
    latent: int = 16,
) -> FittedEncoder:
    """Train a window autoencoder on cells drawn at random.

    Parameters
    ----------
    features : DataArray, (channel, y, x) or (time, channel, y, x)
        Raw clipped channels as from `stack_features`, NumPy or Dask; several frames give one model
        that they share. Scaled here by the minimum and maximum of each channel over all frames,
        where no data reads as 0, as in the flow; a constant channel scales to 0.
    mask : DataArray of bool, (y, x) or (time, y, x), optional
        Cells to train on, such as `domain` gives; all cells with data by default.
    edge : {"neutral", "zero"}, optional
        Beyond the raster lies nobody and no motion, or (as in the original, where it reads as
        extreme motion) 0 after scaling.
    epochs, windows_per_epoch, batch_size : int, optional
        An epoch draws its windows without replacement; the last batch may be smaller.
    seed : int, optional
        Of the initial weights, the drawn cells and their order.
    device : str, optional
        A torch device, or "auto": a GPU where there is one.
    latent : int, optional
        Length of the code.

    Returns
    -------
    FittedEncoder
        With its scaling, the grid's height and width, its configuration and `loss_history`.

    Raises
    ------
    InputError
        If there are fewer cells than a batch, features are infinite, or a setting is out of range.

    Notes
    -----
    Eager. Adam (1e-3, ε 1e-7) on the mean squared error of scaled windows, on one thread: the same
    seed gives the same weights on one kind of machine, under any chunking. Autocast on a GPU only.
    The recipe is that of olley102, PopulationCountClustering.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> people = np.random.default_rng(0).poisson(3, (3, 20, 30)).astype("float32")
    >>> features = xr.DataArray(people, dims=("channel", "y", "x"))
    >>> fit_autoencoder(features, epochs=2, windows_per_epoch=64)  # doctest: +ELLIPSIS
    FittedEncoder(3 channels in 7 x 7 cells -> 16, grid 20 x 30, edge 'neutral', 2 epochs, loss ...)
    """
    config = EncoderConfig(edge, epochs, windows_per_epoch, batch_size, seed, latent)
    return train(training_windows(features, config, mask=mask), config, device=device)


class NobodyError(InputError):
    """There is no cell to train on: nobody lives in the raster."""


def training_windows(
    features: DataArray, config: EncoderConfig, *, mask: DataArray | None = None
) -> TrainingSet:
    """Draw cells and read their windows: the half of `fit_autoencoder` that reads the raster."""
    check_features(features)
    features = features.transpose(..., "channel", "y", "x")
    scaling, cells = _survey(features, config, mask)
    if len(cells) < config.batch_size:
        raise (InputError if len(cells) else NobodyError)(
            f"training has {len(cells)} cells with data in its mask, expected at least one batch "
            f"of {config.batch_size}; widen the mask ([domain] cells of a job), or give a larger "
            "raster"
        )
    windows = gather_windows(features, cells, size=WINDOW, fill=scaling.beyond(config.edge))
    height, width = features.shape[-2:]
    return TrainingSet(windows, cells, scaling, height, width)


def train(training: TrainingSet, config: EncoderConfig, *, device: str = "auto") -> FittedEncoder:
    """Train on given windows: the half of `fit_autoencoder` that a GPU wants; pure and eager."""
    where = pick_device(device)
    generator = torch.Generator().manual_seed(config.seed)
    channels = training.windows.shape[1]
    module = WindowAutoencoder(channels=channels, latent=config.latent, generator=generator)
    module.to(where)
    adam = torch.optim.Adam(module.parameters(), lr=1e-3, eps=1e-7, fused=True)
    autocast = torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda")
    history = []
    with fixed_arithmetic(), torch.enable_grad():
        for chosen in _epochs(len(training.cells), config):
            scaled = training.scaling.scale(training.windows[chosen])
            placed = place(scaled, training.cells[chosen], training.height, training.width)
            epoch = torch.from_numpy(placed).to(where)
            total = torch.zeros((), device=where)
            for batch in epoch.split(config.batch_size):  # (32, 5, 7, 7)
                with autocast:
                    output = module(batch)  # (32, 3, 7, 7)
                loss = nn.functional.mse_loss(output.float(), batch[:, :channels])
                adam.zero_grad()
                loss.backward()
                adam.step()
                total += loss.detach() * len(batch)
            history.append(total.item() / len(epoch))
    module.cpu().requires_grad_(False)
    size = (training.height, training.width)
    return FittedEncoder(module, training.scaling, *size, config, tuple(history))


class _Survey(NamedTuple):
    """What blocks tell before any window is read."""

    low: NDArray[np.float32]
    """Minimum of every channel, no data read as 0."""
    high: NDArray[np.float32]
    ranked: NDArray[np.uint64]
    """Cells that may be trained on, as `rank_cells` gives them."""


def _survey(
    features: DataArray, config: EncoderConfig, mask: DataArray | None
) -> tuple[Scaling, NDArray[np.int64]]:
    """Find the range of every channel and the cells to train on, in one pass."""
    usable = usable_cells(features, mask)
    array = da.asarray(features.data).rechunk({features.ndim - 3: -1})
    masks = []
    if mask is not None:
        allowed = da.asarray(mask.broadcast_like(usable).transpose(*usable.dims).data)
        masks = [allowed.rechunk((*array.chunks[:-3], *array.chunks[-2:]))[..., None, :, :]]
    n = config.epochs * config.windows_per_epoch
    blocks = da.map_blocks(
        _survey_block,
        array,
        *masks,
        first=first_cells(array.chunks),
        shape=usable.shape,
        n=n,
        seed=config.seed,
        meta=np.empty((0,) * array.ndim, object),
    )
    (found,) = tree_reduce(blocks, partial(_join, n=n)).compute()
    low, high = found.low.tolist(), found.high.tolist()
    if not np.isfinite([low, high]).all():
        raise InputError(
            f"features range over {low} to {high} per channel, expected finite values; clip them "
            "with stack_features"
        )
    return Scaling(tuple(low), tuple(high)), in_order(found.ranked, usable.shape)


def _survey_block(
    features: NDArray[np.floating],
    mask: NDArray[np.bool_] | None = None,
    *,
    first: Sequence[NDArray[np.int64]],
    block_id: Sequence[int],
    **options: Any,
) -> _Survey:
    """Survey a block (…, channel, y, x), with a mask (…, 1, y, x)."""
    *frame, _, y, x = (int(cells[i]) for cells, i in zip(first, block_id, strict=True))
    filled = np.where(np.isnan(features), np.float32(0), features).astype(np.float32, copy=False)
    channels = np.moveaxis(filled, -3, 0).reshape(filled.shape[-3], -1)
    usable = ~np.isnan(features[..., 0, :, :])
    if mask is not None:
        usable &= mask[..., 0, :, :]
    ranked = rank_cells(usable, (*frame, y, x), **options)
    return _Survey(channels.min(1), channels.max(1), ranked)


def _join(parts: Sequence[_Survey], n: int) -> _Survey:
    low, high, ranked = zip(*parts, strict=True)
    return _Survey(np.min(low, 0), np.max(high, 0), merge_ranked(ranked, n))


def _epochs(n: int, config: EncoderConfig) -> Iterator[NDArray[np.int64]]:
    """Choose the windows of each epoch, without replacement within it."""
    size = min(n, config.windows_per_epoch)
    if n >= config.epochs * config.windows_per_epoch:  # in random order already
        yield from np.arange(config.epochs * size).reshape(config.epochs, size)
        return
    rng = np.random.default_rng(config.seed)
    for _ in range(config.epochs):
        yield rng.choice(n, size, replace=False)
