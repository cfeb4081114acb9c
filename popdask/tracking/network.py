"""The window autoencoder itself: layers, shapes and the flow of a batch.

One dense network in one file, after the window autoencoder of olley102's PopulationCountClustering.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

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
        """Give the code of windows with their positions."""
        x = x.flatten(1)  # (B, 5, 7, 7) → (B, 245)
        for layer in self.encoder:
            x = torch.relu(layer(x))
        return x  # (B, 16)

    def decode(self, z: Tensor) -> Tensor:
        """Give the windows, without positions, that belong to codes."""
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
