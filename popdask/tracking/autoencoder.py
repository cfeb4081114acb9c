"""An autoencoder of windows: 7 × 7 cells of people and motion in 16 numbers, or as is asked for.

The network and its training follow the window autoencoder of olley102's PopulationCountClustering:
the people and the flow (u, v) of the 7 × 7 cells around a cell, scaled to [0, 1], together with the
window's place in the raster, pass through 128 and 64 units to a code of 16; the way back gives the
window without its place.

Such a code knows where north is: a town's left side is coded unlike its right one. A *symmetric*
encoder has no place and learns from windows turned and mirrored at random; the code of a cell is
the mean of those of the eight views of its window (`views`), so that a frame that is turned or
mirrored has the same codes in other places.

Fitting is two pure halves, so that each can run where it is cheap: `training_windows` draws cells
and reads their windows from the chunks where they lie, `train` turns these plain arrays into a
`FittedEncoder`, on one thread or one GPU, so that the same seed gives the same weights.

A code depends on the weights, on the scaling of the channels, on the grid whose rows and columns
are positions, and on what lies beyond its edge. They are kept together, as safetensors with the
rest as JSON in the header, so that reading a file runs no code from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from numbers import Integral
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim.adam import adam
from xarray import DataArray

from popdask._repr_html import html_card
from popdask.blocks.sampling import gather_windows, in_order, merge_ranked, rank_cells
from popdask.blocks.sums import first_cells, tree_reduce
from popdask.blocks.torch import AsBytes, fixed_arithmetic, pack, pick_device, unpack
from popdask.errors import InputError
from popdask.tracking import VIEWS
from popdask.validate import check_array

WINDOW = 7
MOST_WINDOW = 31  # windows of a training are 2.3 GB then
HIDDEN, SYMMETRIC_HIDDEN = (128, 64), (128, 16)  # units of the layers, those of all views together
AXES_SAMPLE = 10_000  # cells that tell how far apart codes are
LEAST_SPREAD = 1e-4  # share of what windows vary by that an axis must have
CONDITION = 1e-3  # of the codes: what varies less along some direction has no slope of its own
EDGES = ("neutral", "zero")
ADAM: dict[str, Any] = {
    **{"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-7},
    **{"weight_decay": 0.0, "amsgrad": False, "maximize": False},
}
HEADER = "popdask.encoder"  # the metadata entry that makes a safetensors file ours

#: In place: on the CPU, hidden units stay in the cache.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "leaky_relu": nn.functional.leaky_relu_,
    "elu": nn.functional.elu_,
    "tanh": torch.tanh_,
    "sigmoid": torch.sigmoid_,
    "linear": lambda values: values,
}


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Windows to train on: plain arrays that can travel to any worker."""

    windows: NDArray[np.float32]
    """Raw clipped features, (n, channel, window, window), in random order."""
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
    window: int = WINDOW,
    hidden: Sequence[int] | None = None,
    latent: int = 16,
    activation: str = "relu",
    latent_activation: str = "relu",
    l1: float = 0.0,
    l2: float = 0.0,
    symmetric: bool = False,
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
    window : int, optional
        Cells along the side of a window, odd, from 3 to 31.
    hidden : sequence of int, optional
        Units of the layers between window and code, mirrored on the way back; by default 128 and
        64, or 128 and 16 for a symmetric encoder, which encodes as fast then.
    latent : int, optional
        Length of the code.
    activation, latent_activation : str, optional
        Of the hidden layers, and of the code: "relu", "leaky_relu", "elu", "tanh", "sigmoid" or
        "linear". The last layer is linear.
    l1, l2 : float, optional
        Regularisation: what the sums of the weights' magnitudes, and of their squares, add to the
        loss; biases are left out.
    symmetric : bool, optional
        Whether codes are alike in all directions: without the window's place, and the mean over its
        eight views, each of which has an eighth of the first layer's units. Features are people, u
        and v then. Jobs have it by default.

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
    The recipe is that of olley102, PopulationCountClustering; so are the defaults.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> people = np.random.default_rng(0).poisson(3, (3, 20, 30)).astype("float32")
    >>> features = xr.DataArray(people, dims=("channel", "y", "x"))
    >>> fit_autoencoder(features, epochs=2, windows_per_epoch=64)  # doctest: +ELLIPSIS
    FittedEncoder(3 channels in 7 x 7 cells -> 16, grid 20 x 30, edge 'neutral', 2 epochs, loss ...)
    """
    if hidden is None:
        hidden = SYMMETRIC_HIDDEN if symmetric else HIDDEN
    config = EncoderConfig(
        edge=edge,
        epochs=epochs,
        windows_per_epoch=windows_per_epoch,
        batch_size=batch_size,
        seed=seed,
        window=window,
        hidden=tuple(hidden),
        latent=latent,
        activation=activation,
        latent_activation=latent_activation,
        l1=l1,
        l2=l2,
        symmetric=symmetric,
    )
    return train(training_windows(features, config, mask=mask), config, device=device)


class NobodyError(InputError):
    """There is no cell to train on: nobody lives in the raster."""


def training_windows(
    features: DataArray, config: EncoderConfig, *, mask: DataArray | None = None
) -> TrainingSet:
    """Draw cells and read their windows: the half of `fit_autoencoder` that reads the raster."""
    check_features(features)
    if config.symmetric and features.sizes["channel"] != 3:
        raise InputError(
            f"features have {features.sizes['channel']} channels, expected people, u and v, which "
            "a symmetric encoder turns and mirrors; stack them so, or give symmetric=False"
        )
    features = features.transpose(..., "channel", "y", "x")
    scaling, cells = _survey(features, config, mask)
    if len(cells) < config.batch_size:
        raise (InputError if len(cells) else NobodyError)(
            f"training has {len(cells)} cells with data in its mask, expected at least one batch "
            f"of {config.batch_size}; widen the mask ([domain] cells of a job), or give a larger "
            "raster"
        )
    windows = gather_windows(features, cells, size=config.window, fill=scaling.beyond(config.edge))
    height, width = features.shape[-2:]
    return TrainingSet(windows, cells, scaling, height, width)


def train(training: TrainingSet, config: EncoderConfig, *, device: str = "auto") -> FittedEncoder:
    """Train on given windows: the half of `fit_autoencoder` that a GPU wants; pure and eager."""
    where = pick_device(device)
    generator = torch.Generator().manual_seed(config.seed)
    channels = training.windows.shape[1]
    module = config.network(channels, generator)
    module.to(where)
    step = _adam(list(module.parameters()))
    autocast = torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda")
    history = []
    with fixed_arithmetic(), torch.enable_grad():
        for chosen in _epochs(len(training.cells), config):
            seen = training.windows[chosen]
            if config.symmetric:
                drawn = torch.randint(VIEWS, (len(seen),), generator=generator)
                every = torch.stack(views(torch.from_numpy(seen)))
                seen = every[drawn, torch.arange(len(seen))].numpy()
            placed = training.scaling.scale(seen)
            if module.positions:
                placed = place(placed, training.cells[chosen], training.height, training.width)
            epoch = torch.from_numpy(placed).to(where)
            total = torch.zeros((), device=where)
            for batch in epoch.split(config.batch_size):  # (32, 5, 7, 7)
                with autocast:
                    output = module(batch)  # (32, 3, 7, 7)
                loss = nn.functional.mse_loss(output.float(), batch[:, :channels])
                module.zero_grad()
                (loss + module.penalty(config.l1, config.l2)).backward()
                step()
                total += loss.detach() * len(batch)
            history.append(total.item() / len(epoch))
    module.cpu().requires_grad_(False)
    size = (training.height, training.width)
    return FittedEncoder(module, training.scaling, *size, config, tuple(history))


def _adam(weights: list[Tensor]) -> Callable[[], None]:
    """A step of Adam on some weights; `torch.optim.Adam` loads a compiler first, for a second."""
    means, squares = ([torch.zeros_like(each) for each in weights] for _ in range(2))
    steps = [torch.zeros((), dtype=torch.float32, device=each.device) for each in weights]

    @torch.no_grad()
    def step() -> None:
        grads = [each.grad for each in weights if each.grad is not None]
        adam(weights, grads, means, squares, [], steps, fused=True, **ADAM)

    return step


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
    scaling = Scaling(tuple(low), tuple(high))
    scaling = scaling.about_rest() if config.symmetric else scaling
    return scaling, in_order(found.ranked, usable.shape)


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


class WindowAutoencoder(nn.Module):
    """Dense autoencoder of one window: (5, 7, 7) → 128 → 64 → 16 → 64 → 128 → (3, 7, 7).

    Parameters
    ----------
    window : int, optional
        Cells along the window's side, odd.
    channels : int, optional
        Channels to be reconstructed: people, u, v.
    positions : int, optional
        Channels that only go in: row and column position.
    hidden : tuple of int, optional
        Units between window and code, mirrored on the way back.
    latent : int, optional
        Length of the code.
    activation, latent_activation : str, optional
        Of the hidden layers, and of the code; the last layer is linear.
    generator : torch.Generator, optional
        Source of the initial weights (Glorot-uniform; biases start at 0).

    Notes
    -----
    By default ReLU after every layer but the last, the code's too, so a code is never negative.
    Where a batch is written B, a window of 7 and the default channels:

    - ``forward``: (B, 5, 7, 7) → (B, 3, 7, 7)
    - ``encode``: (B, 5, 7, 7) → (B, 16)
    - ``decode``: (B, 16) → (B, 3, 7, 7)

    Examples
    --------
    >>> import torch
    >>> WindowAutoencoder()(torch.zeros(2, 5, 7, 7)).shape
    torch.Size([2, 3, 7, 7])
    """

    def __init__(
        self,
        window: int = WINDOW,
        channels: int = 3,
        positions: int = 2,
        hidden: tuple[int, ...] = HIDDEN,
        latent: int = 16,
        activation: str = "relu",
        latent_activation: str = "relu",
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.window, self.channels, self.positions = window, channels, positions
        self.activate, self.activate_latent = (
            ACTIVATIONS[name] for name in (activation, latent_activation)
        )
        area = window**2
        self.encoder = _dense([(channels + positions) * area, *hidden, latent], generator)
        self.decoder = _dense([latent, *hidden[::-1], channels * area], generator)

    def encode(self, x: Tensor) -> Tensor:
        """Return the code of windows with their positions."""
        x = x.flatten(1)  # (B, 5, 7, 7) → (B, 245)
        *inner, last = self.encoder
        for layer in inner:
            x = self.activate(layer(x))
        return self.activate_latent(last(x))  # (B, 16)

    def decode(self, z: Tensor) -> Tensor:
        """Return the windows, without positions, that belong to codes."""
        *inner, last = self.decoder
        for layer in inner:
            z = self.activate(layer(z))
        return last(z).unflatten(1, (self.channels, self.window, self.window))  # (B, 3, 7, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct windows."""
        return self.decode(self.encode(x))

    def penalty(self, l1: float, l2: float) -> Tensor | float:
        """Return what the weights, without the biases, add to the loss of a training."""
        weights = [layer.weight for layer in (*self.encoder, *self.decoder)] if l1 or l2 else []
        return sum(l1 * weight.abs().sum() + l2 * weight.square().sum() for weight in weights)


def _dense(sizes: list[int], generator: torch.Generator | None) -> nn.ModuleList:
    """Make a chain of dense layers, without touching torch's global random state."""
    layers = nn.ModuleList()
    for before, after in pairwise(sizes):
        layer = nn.Linear(before, after, device="meta")  # to_empty loads half of a compiler
        weight = nn.init.xavier_uniform_(torch.empty(after, before), generator=generator)
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(after))
        layers.append(layer)
    return layers


@dataclass(frozen=True)
class EncoderConfig:
    """How an encoder is built and trained.

    Examples
    --------
    >>> EncoderConfig(epochs=50).windows_per_epoch
    1000
    """

    edge: str = "neutral"
    """Beyond the raster: "neutral" sees nobody and no motion, "zero" sees 0 after scaling."""
    epochs: int = 200
    windows_per_epoch: int = 1000
    batch_size: int = 32
    seed: int = 0
    """Of the initial weights, the drawn cells and their order."""
    window: int = WINDOW
    """Cells along the side of a window, odd."""
    hidden: tuple[int, ...] = HIDDEN
    """Units of the layers between window and code, mirrored on the way back; of the first, each
    view of a symmetric encoder has an eighth."""
    latent: int = 16
    """Length of a cell's code."""
    activation: str = "relu"
    """Of the hidden layers."""
    latent_activation: str = "relu"
    """Of the code."""
    l1: float = 0.0
    """What the sum of the weights' magnitudes adds to the loss ..."""
    l2: float = 0.0
    """... and that of their squares."""
    symmetric: bool = False
    """Codes alike in all directions: no place, and the mean over a window's eight views."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))  # JSON has lists
        chosen = {"edge": EDGES, "activation": ACTIVATIONS, "latent_activation": ACTIVATIONS}
        for name, allowed in chosen.items():
            if (value := getattr(self, name)) not in allowed:
                raise InputError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")
        for name in ("epochs", "windows_per_epoch", "batch_size", "latent"):
            if not _counts(value := getattr(self, name)):
                raise InputError(f"{name} is {value!r}, expected a whole number from 1 up")
        if not (_counts(self.window) and self.window in range(3, MOST_WINDOW + 1, 2)):
            raise InputError(
                f"window is {self.window!r}, expected an odd number of cells from 3 to "
                f"{MOST_WINDOW}, so that a cell is in its middle"
            )
        if not (self.hidden and all(map(_counts, self.hidden))):
            raise InputError(
                f"hidden is {self.hidden!r}, expected the units of at least one layer, such as "
                f"{HIDDEN}"
            )
        for name in ("l1", "l2"):
            if not 0 <= (value := getattr(self, name)) < np.inf:
                raise InputError(f"{name} is {value!r}, expected a number from 0 up, such as 1e-4")

    def network(self, channels: int, generator: torch.Generator | None = None) -> WindowAutoencoder:
        """Build the network, with random weights; a symmetric one sees one view."""
        first, *others = self.hidden
        return WindowAutoencoder(
            window=self.window,
            channels=channels,
            positions=0 if self.symmetric else 2,
            hidden=(-(-first // VIEWS) if self.symmetric else first, *others),
            latent=self.latent,
            activation=self.activation,
            latent_activation=self.latent_activation,
            generator=generator,
        )


def _counts(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


@dataclass(frozen=True)
class Scaling:
    """Linear map of every channel from [minimum, maximum] to [0, 1], in float32.

    Examples
    --------
    >>> Scaling((0.0, -1.0), (200.0, 1.0)).span.ravel().tolist()
    [200.0, 2.0]
    """

    minimum: tuple[float, ...]
    maximum: tuple[float, ...]

    @property
    def low(self) -> NDArray[np.float32]:
        """Minima, (channel, 1, 1)."""
        return np.array(self.minimum, np.float32)[:, None, None]

    @property
    def span(self) -> NDArray[np.float32]:
        """Widths of the ranges, (channel, 1, 1)."""
        return np.array(self.maximum, np.float32)[:, None, None] - self.low

    def about_rest(self) -> Scaling:
        """The map that has motion from -1/2 to 1/2 about rest, the same for u and v."""
        fastest = max(map(abs, (*self.minimum[1:], *self.maximum[1:])))
        return Scaling((self.minimum[0], 0.0, 0.0), (self.maximum[0], 2 * fastest, 2 * fastest))

    def scale(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scale raw features (…, channel, y, x); no data reads as 0, a constant channel gives 0."""
        gain = np.divide(1, self.span, out=np.zeros_like(self.span), where=self.span > 0)
        scaled = np.where(np.isnan(values), np.float32(0), values).astype(np.float32, copy=False)
        scaled -= self.low
        scaled *= gain
        return scaled

    def restore(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undo `scale`."""
        return values * self.span + self.low

    def beyond(self, edge: str) -> tuple[float, ...]:
        """Raw value per channel beyond the raster: nobody and no motion, or what scales to 0."""
        return self.minimum if edge == "zero" else (0.0,) * len(self.minimum)


@dataclass(frozen=True, eq=False, repr=False)
class FittedEncoder(AsBytes):
    """A trained window autoencoder, with all that its codes depend on.

    It is picklable (as safetensors bytes) and costs about 200 kB, so it can travel as one Dask key.

    Examples
    --------
    >>> encoder = FittedEncoder(WindowAutoencoder(), Scaling((0, -1, -1), (90, 1, 1)), 20, 30)
    >>> encoder
    FittedEncoder(3 channels in 7 x 7 cells -> 16, grid 20 x 30, edge 'neutral', 0 epochs, loss ...)
    >>> FittedEncoder.from_bytes(encoder.to_bytes()).scaling == encoder.scaling
    True
    """

    module: WindowAutoencoder
    """On the CPU, in float32."""
    scaling: Scaling
    """Minimum and maximum per channel over the training frames; of motion, if symmetric, rest and
    twice the fastest."""
    height: int
    """Rows of the grid, which the row positions refer to."""
    width: int
    """Columns of the grid."""
    config: EncoderConfig = field(default_factory=EncoderConfig)
    loss_history: tuple[float, ...] = ()
    """Mean squared error of the scaled windows, per epoch, mean over its windows."""

    @property
    def edge(self) -> str:
        """What lies beyond the raster: "neutral" or "zero"."""
        return self.config.edge

    @property
    def symmetric(self) -> bool:
        """Whether codes are alike in all directions."""
        return not self.module.positions

    @property
    def window(self) -> int:
        """Cells along the side of a window."""
        return self.module.window

    @property
    def fill(self) -> tuple[float, ...]:
        """Raw value per channel beyond the raster, for `gather_windows`."""
        return self.scaling.beyond(self.edge)

    def encode_windows(
        self, windows: NDArray[np.floating], cells: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Encode raw clipped windows (n, channel, y, x) around cells (n, 2 or 3) → (n, latent).

        This is the dense path, for a few windows; `popdask.encode` does whole rasters.
        """
        seen = torch.from_numpy(np.asarray(windows, np.float32))
        with fixed_arithmetic(), torch.inference_mode():
            every = [self._code(v, cells) for v in (views(seen) if self.symmetric else [seen])]
            return torch.stack(every).mean(0).numpy()

    def reconstruct_windows(
        self, windows: NDArray[np.floating], cells: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Encode raw clipped windows as they lie, and decode their middles, (n, channel)."""
        with fixed_arithmetic(), torch.inference_mode():
            seen = torch.from_numpy(np.asarray(windows, np.float32))
            decoded = self.module.decode(self._code(seen, cells)).numpy()
        return self.scaling.restore(decoded)[..., self.window // 2, self.window // 2]

    def window_axes(self, codes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return axes along which codes lie as far apart as the windows they stand for.

        Parameters
        ----------
        codes : array of float, (n, latent)
            Of some cells; at most 10,000 of them, evenly spaced, are decoded.

        Returns
        -------
        array of float64, (latent, axis)
            To multiply codes without their mean by; the axis along which they vary most comes
            first. It is the linear map that fits the decoder best, in principal axes. Together the
            axes vary as much as standardised codes.

        Notes
        -----
        A symmetric encoder's code is the mean of those of eight views, and decoded as it is.
        """
        # How a fit lays its codes out is chance: one may double, or vary where no window does. What
        # the windows are is not.
        some = codes[:: -(-len(codes) // AXES_SAMPLE)].astype(np.float32)
        with fixed_arithmetic(), torch.inference_mode():
            windows = self.module.decode(torch.from_numpy(some)).flatten(1).numpy()
        away, windows = (a - a.mean(0, dtype=np.float64) for a in (some, windows))
        slopes = np.linalg.lstsq(away, windows, rcond=CONDITION)[0]
        # As those of away @ slopes, by few rows.
        *_, principal = np.linalg.svd(np.linalg.qr(away, mode="r") @ slopes, full_matrices=False)
        axes = slopes @ principal.T
        spread = np.square(away @ axes).mean(axis=0)
        wide = spread > LEAST_SPREAD * spread.sum()
        wide[0] = True
        varies = away.std(axis=0) > len(away) * np.finfo(float).eps * np.abs(some).max()
        factor = np.sqrt(varies.sum() / spread.sum()) if spread.any() else 1.0
        return np.ascontiguousarray(axes[:, wide] * factor)

    def _code(self, seen: Tensor, cells: NDArray[np.int64]) -> Tensor:
        """Encode raw windows as they are seen."""
        x = self.scaling.scale(seen.numpy())
        if self.module.positions:
            x = place(x, cells, self.height, self.width)
        return self.module.encode(torch.from_numpy(x))

    def to_bytes(self) -> bytes:
        """Serialise as safetensors, everything but the weights as JSON in the header."""
        state = {
            "scaling": [self.scaling.minimum, self.scaling.maximum],
            "height": self.height,
            "width": self.width,
            "config": asdict(self.config),
            "loss_history": self.loss_history,
        }
        return pack(self.module.state_dict(), HEADER, state)

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "encoder") -> FittedEncoder:
        """Read what `to_bytes` wrote; `name` is what an InputError calls the data."""
        try:
            weights, state = unpack(data, HEADER)
            config = EncoderConfig(**state["config"])
            scaling = Scaling(*map(tuple, state["scaling"]))
            module = config.network(len(scaling.minimum))
            module.load_state_dict(weights)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{name} is not an encoder that popdask saved ({error}); "
                "give the file that FittedEncoder.save wrote"
            ) from error
        history = tuple(state["loss_history"])
        return cls(module, scaling, state["height"], state["width"], config, history)

    def _repr_html_(self) -> str:
        """The settings, and the course of the loss, as a notebook shows them."""
        ranges = zip(self.scaling.minimum, self.scaling.maximum, strict=True)
        rows = {
            "sees": f"{self.module.channels} channels in {self.window} × {self.window} cells",
            "gives": f"{self.config.latent} numbers for each cell, by way of "
            f"{' and '.join(map(str, self.config.hidden))} units",
            "grid": f"{self.height} × {self.width} cells",
            "ranges": ", ".join(f"{low:.4g} … {high:.4g}" for low, high in ranges),
            "beyond the raster": self.edge,
            "alike in all directions": "yes" if self.symmetric else "no",
            "trained": f"{len(self.loss_history)} epochs of {self.config.windows_per_epoch} "
            f"windows, seed {self.config.seed}",
            "loss": f"{self._loss()}, the mean of the last epochs",
        }
        return html_card("FittedEncoder", rows, curve=self.loss_history)

    def _loss(self) -> str:
        return f"{np.mean(self.loss_history[-10:]):.2g}" if self.loss_history else "unknown"

    def __repr__(self) -> str:
        return (
            f"FittedEncoder({self.module.channels} channels in {self.window} x {self.window} cells "
            f"-> {self.config.latent}, grid {self.height} x {self.width}, edge {self.edge!r}, "
            f"{len(self.loss_history)} epochs, loss {self._loss()})"
        )


def views(windows: Tensor) -> list[Tensor]:
    """Turn and mirror windows of people, u and v (..., 3, y, x) in all eight ways."""
    # The motion turns, too: it is swapped with the axes, and reversed with the axis it is along.
    seen = [windows, windows.transpose(-1, -2)[..., [0, 2, 1], :, :]]
    for axis, signs in ((-1, (1, -1, 1)), (-2, (1, 1, -1))):
        turned = windows.new_tensor(signs)[:, None, None]
        seen += [view.flip(axis) * turned for view in seen]
    return seen


def place(
    scaled: NDArray[np.float32], cells: NDArray[np.int64], height: int, width: int
) -> NDArray[np.float32]:
    """Append row and column position to windows: (n, 3, 7, 7) → (n, 5, 7, 7)."""
    n, channels, window, _ = scaled.shape
    placed = np.empty((n, channels + 2, window, window), np.float32)
    placed[:, :channels] = scaled
    placed[:, -2] = axis_positions(height, window)[cells[:, -2], :, None]
    placed[:, -1] = axis_positions(width, window)[cells[:, -1], None, :]
    return placed


def axis_positions(length: int, window: int) -> NDArray[np.float32]:
    """Positions in the windows along an axis, (length, window): 0 to 1 over the padded axis."""
    ramp = np.linspace(0, 1, length + window - 1, dtype=np.float32)
    return np.lib.stride_tricks.sliding_window_view(ramp, window)


def check_features(features: DataArray) -> None:
    """Refuse what `stack_features` does not make."""
    check_array("features", features, "channel", "y", "x", hint="stack_features makes them")


def usable_cells(features: DataArray, mask: DataArray | None) -> DataArray:
    """Return the cells (…, y, x) of a mask that have data; all with data where there is no mask."""
    data = features.isel(channel=0, drop=True).notnull()
    if mask is None:
        return data
    if mask.dtype != bool:
        raise InputError(f"mask holds {mask.dtype}, expected bool; compare it with something first")
    usable = (data & mask).transpose(*data.dims, ...)
    if usable.shape != data.shape:
        raise InputError(
            f"mask {dict(mask.sizes)} does not lie on the features' grid {dict(data.sizes)}; "
            "make it from the same cube"
        )
    return usable
