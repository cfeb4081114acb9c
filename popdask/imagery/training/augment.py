"""Variations of the images that a network learns from: mirrored, brighter, of more contrast.

What happens to an image is drawn by its place in the epoch, so it does not depend on the batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Variations:
    """What is done to each image of an epoch."""

    flips: NDArray[np.bool_]
    """Mirror it along its columns, along its rows: (n, 2)."""
    brightness: NDArray[np.float32]
    """Factor, (n,)."""
    contrast: NDArray[np.float32]
    """Factor of the distance to the image's mean, (n,)."""

    @classmethod
    def draw(
        cls, n: int, rng: np.random.Generator, *, flips: str = "horizontal", jitter: float = 0.2
    ) -> Variations:
        """Draw for n images; half of them are mirrored along an axis that is asked for.

        Examples
        --------
        >>> Variations.draw(3, np.random.default_rng(0), jitter=0.0).contrast.tolist()
        [1.0, 1.0, 1.0]
        """
        axes = {"none": (False, False), "horizontal": (True, False), "both": (True, True)}[flips]
        mirrored = (rng.random((n, 2)) < 0.5) & np.array(axes)
        factors = rng.uniform(1 - jitter, 1 + jitter, (2, n)).astype(np.float32)
        return cls(mirrored, factors[0], factors[1])

    def apply(self, images: Tensor, places: slice) -> Tensor:
        """Vary images (n, band, row, col) in units of white, which have these places in the epoch.

        Values stay within [0, 1], or what the image itself has beyond it: floats are often not in
        units of white. Without jitter and flips the images are unchanged.
        """
        device = images.device
        columns, rows = torch.from_numpy(self.flips[places].T.copy()).to(device)
        images = torch.where(columns[:, None, None, None], images.flip(3), images)
        images = torch.where(rows[:, None, None, None], images.flip(2), images)
        brightness, contrast = (
            torch.from_numpy(factor[places]).to(device)[:, None, None, None]
            for factor in (self.brightness, self.contrast)
        )
        low = images.amin((1, 2, 3), keepdim=True).clamp(max=0)
        high = images.amax((1, 2, 3), keepdim=True).clamp(min=1)
        images = (images * brightness).clamp(low, high)
        mean = images.mean((1, 2, 3), keepdim=True)
        return ((images - mean) * contrast + mean).clamp(low, high)
