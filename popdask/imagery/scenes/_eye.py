"""Show cells to a network, so that what it sees in one does not depend on the cells beside it.

All batches have one shape, the last one filled up: kernels of other shapes differ in the last bit.
On a CPU a batch is one cell, which passes through the layers within the cache.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from popdask.arithmetic import fixed_arithmetic
from popdask.devices import pick_device
from popdask.imagery.models import Normalisation
from popdask.imagery.scenes.efficientnet import FEATURES, EfficientNetB3


@dataclass(frozen=True)
class Eye:
    """How cells are shown to the network."""

    bands: tuple[int, ...]
    """Positions of one band, which is shown as grey, or of three."""
    scaling: Normalisation
    """From raw values to the network's input."""
    size: int
    """Rows and columns of the picture."""
    batch_size: int
    """Cells at once on a GPU."""
    device: str

    def describe(
        self, images: NDArray, usable: NDArray[np.bool_], network: EfficientNetB3
    ) -> NDArray[np.float32]:
        """Give the features (n, 1536) of raw images (n, band, row, col); NaN where not usable."""
        if images.dtype.kind == "f":
            usable = usable & ~np.isnan(images[:, self.bands]).any((1, 2, 3))
        features = np.full((len(images), FEATURES), np.nan, np.float32)
        features[usable] = self.see(images[usable], network)
        return features

    def see(self, images: NDArray, network: EfficientNetB3) -> NDArray[np.float32]:
        """Give the features of raw images (n, band, row, col) → (n, 1536)."""
        device = pick_device(self.device)
        step = 1
        if device.type != "cpu":
            network, step = _placed(network, device), self.batch_size
        batch = torch.zeros((step, len(self.bands), *images.shape[2:]), device=device)
        features = np.empty((len(images), FEATURES), np.float32)
        with fixed_arithmetic(1), torch.inference_mode():
            for start in range(0, len(images), step):
                raw = np.ascontiguousarray(images[start : start + step, self.bands])
                batch[: len(raw)] = self.scaling.unit(torch.from_numpy(raw).to(device))
                seen = functional.normalize(network.embed(self._picture(batch)))
                features[start : start + step] = seen[: len(raw)].cpu().numpy()
        return features

    def _picture(self, batch: torch.Tensor) -> torch.Tensor:
        """Resize images with white = 1; (B, 1 or 3, row, col) → (B, 3, size, size)."""
        resized = functional.interpolate(
            batch, (self.size, self.size), mode="bicubic", align_corners=False, antialias=True
        )
        shown = self.scaling.centre(resized.clamp(0, 1).expand(-1, 3, -1, -1))
        return shown.contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=1)
def _placed(network: EfficientNetB3, device: torch.device) -> EfficientNetB3:
    """Copy a network to a device, once per process."""
    return copy.deepcopy(network).to(device)
