"""The encoder that one stage trains and others use: its network, and the fitted model.

The window autoencoder itself: layers, shapes and the flow of a batch.

One dense network in one file, after the window autoencoder of olley102's PopulationCountClustering.

A trained window autoencoder with all that its codes depend on, as one object and as one file.

A cell's code depends on the weights, on the scaling of the channels, on the grid whose rows and
columns are positions, and on what lies beyond its edge. They are kept together: as safetensors with
the rest as JSON in the header, so that reading a file runs no code from it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from numbers import Integral

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from xarray import DataArray

from popdask._repr_html import html_card
from popdask.blocks.torch import AsBytes, fixed_arithmetic, pack, unpack
from popdask.errors import InputError
from popdask.validate import check_array

WINDOW = 7


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
    generator : torch.Generator, optional
        Source of the initial weights (Glorot-uniform; biases start at 0).

    Notes
    -----
    ReLU after every layer but the last, the code's too, so a code is never negative. Where a batch
    is written B, a window of 7 and the default channels:

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
        hidden: tuple[int, ...] = (128, 64),
        latent: int = 16,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.window, self.channels, self.positions = window, channels, positions
        area = window**2
        self.encoder = _dense([(channels + positions) * area, *hidden, latent], generator)
        self.decoder = _dense([latent, *hidden[::-1], channels * area], generator)

    def encode(self, x: Tensor) -> Tensor:
        """Return the code of windows with their positions."""
        x = x.flatten(1)  # (B, 5, 7, 7) → (B, 245)
        for layer in self.encoder:
            x = torch.relu(layer(x))
        return x  # (B, 16)

    def decode(self, z: Tensor) -> Tensor:
        """Return the windows, without positions, that belong to codes."""
        *inner, last = self.decoder
        for layer in inner:
            z = torch.relu(layer(z))
        return last(z).unflatten(1, (self.channels, self.window, self.window))  # (B, 3, 7, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct windows."""
        return self.decode(self.encode(x))


def _dense(sizes: list[int], generator: torch.Generator | None) -> nn.ModuleList:
    """Make a chain of dense layers, without touching torch's global random state."""
    layers = [nn.utils.skip_init(nn.Linear, *pair) for pair in pairwise(sizes)]
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    return nn.ModuleList(layers)


EDGES = ("neutral", "zero")
HEADER = "popdask.encoder"  # the metadata entry that makes a safetensors file ours


@dataclass(frozen=True)
class EncoderConfig:
    """How an encoder is trained.

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
    latent: int = 16
    """Length of a cell's code."""

    def __post_init__(self) -> None:
        if self.edge not in EDGES:
            raise InputError(f"edge is {self.edge!r}, expected one of {', '.join(EDGES)}")
        for name in ("epochs", "windows_per_epoch", "batch_size", "latent"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise InputError(f"{name} is {value!r}, expected a whole number from 1 up")


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
    """Minimum and maximum per channel over the training frames."""
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
    def fill(self) -> tuple[float, ...]:
        """Raw value per channel beyond the raster, for `gather_windows`."""
        return self.scaling.beyond(self.edge)

    def encode_windows(
        self, windows: NDArray[np.floating], cells: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Encode raw clipped windows (n, channel, 7, 7) around cells (n, 2 or 3) → (n, latent).

        This is the dense path, for a few windows; `popdask.tracking.encode` does whole rasters.
        """
        x = place(self.scaling.scale(windows), cells, self.height, self.width)
        with fixed_arithmetic(), torch.inference_mode():
            return self.module.encode(torch.from_numpy(x)).numpy()

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
            module = WindowAutoencoder(channels=len(scaling.minimum), latent=config.latent)
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
            "sees": f"{self.module.channels} channels in {WINDOW} × {WINDOW} cells",
            "gives": f"{self.config.latent} numbers for each cell",
            "grid": f"{self.height} × {self.width} cells",
            "ranges": ", ".join(f"{low:.4g} … {high:.4g}" for low, high in ranges),
            "beyond the raster": self.edge,
            "trained": f"{len(self.loss_history)} epochs of {self.config.windows_per_epoch} "
            f"windows, seed {self.config.seed}",
            "loss": f"{self._loss()}, the mean of the last epochs",
        }
        return html_card("FittedEncoder", rows, curve=self.loss_history)

    def _loss(self) -> str:
        return f"{np.mean(self.loss_history[-10:]):.2g}" if self.loss_history else "unknown"

    def __repr__(self) -> str:
        return (
            f"FittedEncoder({self.module.channels} channels in {WINDOW} x {WINDOW} cells -> "
            f"{self.config.latent}, grid {self.height} x {self.width}, edge {self.edge!r}, "
            f"{len(self.loss_history)} epochs, loss {self._loss()})"
        )


def place(
    scaled: NDArray[np.float32], cells: NDArray[np.int64], height: int, width: int
) -> NDArray[np.float32]:
    """Append row and column position to windows: (n, 3, 7, 7) → (n, 5, 7, 7)."""
    n, channels, window, _ = scaled.shape
    placed = np.empty((n, channels + 2, window, window), np.float32)
    placed[:, :channels] = scaled
    placed[:, -2] = axis_positions(height)[cells[:, -2], :, None]
    placed[:, -1] = axis_positions(width)[cells[:, -1], None, :]
    return placed


def axis_positions(length: int) -> NDArray[np.float32]:
    """Positions in the windows along an axis, (length, 7): 0 to 1 over the padded axis."""
    ramp = np.linspace(0, 1, length + WINDOW - 1, dtype=np.float32)
    return np.lib.stride_tricks.sliding_window_view(ramp, WINDOW)


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
