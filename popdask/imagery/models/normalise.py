"""How the numbers of an image become the input of a network.

Sellebjerg et al. take 8-bit grey to [0, 1] and then (x − 0.5) / 0.5. Here white, the mean and the
standard deviation may be others, per band, and travel with the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from popdask.errors import InputError


@dataclass(frozen=True)
class Normalisation:
    """A linear map per band: x / white, minus the mean, over the standard deviation.

    Examples
    --------
    >>> scaling = Normalisation.half("uint8", bands=1)
    >>> scaling(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist()
    [[[[-1.0, 1.0]]]]
    """

    white: float
    """The value that becomes 1: 255 for 8-bit images."""
    mean: tuple[float, ...]
    """Per band, after the division by white."""
    std: tuple[float, ...]
    """Per band, after the division by white."""

    def __post_init__(self) -> None:
        if not self.white > 0 or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise InputError(
                f"the normalisation is {self.white}, {self.mean}, {self.std}, expected white and "
                "standard deviations above 0, and one mean and deviation per band"
            )

    @classmethod
    def half(cls, dtype: DTypeLike, bands: int = 1, white: float | None = None) -> Normalisation:
        """Take [0, white] to [−1, 1]; white is the type's largest number (1 for floats)."""
        dtype = np.dtype(dtype)
        largest = np.iinfo(dtype).max if dtype.kind in "ui" else 1.0
        return cls(float(white or largest), (0.5,) * bands, (0.5,) * bands)

    @classmethod
    def of_bands(cls, images: NDArray, white: float | None = None) -> Normalisation:
        """Take each band of images (n, band, row, col) to mean 0 and deviation 1."""
        plain = cls.half(images.dtype, images.shape[1], white)
        if images.dtype.kind == "f":
            images = np.where(np.isnan(images), images.dtype.type(0), images)
        means = images.mean((0, 2, 3), dtype=np.float64) / plain.white
        deviations = images.std((0, 2, 3), dtype=np.float64) / plain.white
        deviations[deviations == 0] = 1.0  # a constant band says nothing
        return cls(plain.white, tuple(means.tolist()), tuple(deviations.tolist()))

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.mean)

    def unit(self, images: Tensor) -> Tensor:
        """Take raw images (n, band, row, col) to float32, white to 1, what has no data to 0."""
        if images.is_floating_point():
            images = torch.where(images.isnan(), 0.0, images)  # a ring may reach beyond the mosaic
        return images.to(torch.float32) / self.white

    def centre(self, images: Tensor) -> Tensor:
        """Take images in units of white to the input of the network."""
        mean, std = (images.new_tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std

    def __call__(self, images: Tensor) -> Tensor:
        """Take raw images (n, band, row, col) to the input of the network, float32."""
        return self.centre(self.unit(images)).contiguous(memory_format=torch.channels_last)
