"""Why a model says what it says: Grad-CAM after Selvaraju et al. (2017).

The last feature map of a network still knows where things are. Each of its channels is weighted by
how much the answer would change with it, its mean gradient; the weighted sum, without what speaks
against the answer, is large where the image speaks for it.

R. R. Selvaraju, M. Cogswell, A. Das, R. Vedantam, D. Parikh, D. Batra, "Grad-CAM: visual
explanations from deep networks via gradient-based localization", ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from popdask.blocks.torch import fixed_arithmetic
from popdask.errors import InputError
from popdask.imagery.model import TrainedModel, as_trained
from popdask.imagery.networks import CountCNN, Network, PopulationViT, PresenceCNN

PEOPLE = (
    0.5  # from here on somebody lives in a cell: rounded people, and the classifier's threshold
)


def gradcam(model: TrainedModel | Network, image: ArrayLike) -> NDArray[np.float32]:
    """Show what in an image speaks for presence, or for people.

    Parameters
    ----------
    model : TrainedModel
        Of presence or of people.
    image : array_like, (band, row, col)
        Raw pixels of one cell with its ring, as the model was trained on; (row, col) for one band.

    Returns
    -------
    ndarray of float32, (row, col)
        In [0, 1]: 1 where the image speaks most for a higher answer, 0 where it does not. 0
        everywhere if nothing does. The ring around the cell is part of it.

    Raises
    ------
    InputError
        If the image has other bands or pixels than the model.

    Notes
    -----
    ReLU(Σ α A) over the channels A of the last feature map, where α is the mean of the answer's
    gradient over a channel; the map is scaled up bilinearly, and divided by its maximum. The answer
    is the logit of presence, or people; log(1 + people) of a transformer. The last feature map is
    what the last convolution block gives (6 × 6 for 200 × 200 pixels); of a transformer, the codes
    of the patches that go into the last layer, the last ones that the answer hangs on.

    Examples
    --------
    >>> network = {"network": "PresenceCNN", "widths": (4, 8), "hidden": (8,)}
    >>> model = TrainedModel.untrained("presence", network, pixels=40)
    >>> gradcam(model, np.zeros((1, 40, 40), np.uint8)).shape
    (40, 40)
    """
    pixels = np.asarray(image)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    model = as_trained(model, pixels.dtype, pixels.shape[-1])
    expected = (model.bands, model.pixels, model.pixels)
    if pixels.shape != expected:
        raise InputError(
            f"the image has (band, row, col) = {pixels.shape}, expected {expected}, what the model "
            "was trained on; cut cells with its bands, size and context"
        )
    with fixed_arithmetic(1), torch.enable_grad():
        normal = model.normalisation(torch.from_numpy(np.ascontiguousarray(pixels[None])))
        features, answer = split(model.module, normal)
        features = features.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(answer(features).sum(), features)
    return _scaled_up(activation(features.detach(), gradient), pixels.shape[-2:])


def split(module: Network, image: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the last feature map (1, C, h, w), and the rest of the network as a function of it."""
    if not isinstance(module, PopulationViT):
        if not isinstance(module, PresenceCNN | CountCNN):
            raise InputError(
                f"Grad-CAM explains networks that learn from pixels, and this model is "
                f"{module.config['network']!r}; give a convolutional network or a transformer"
            )
        return module.features(image), module.head
    codes = module.patches(image).flatten(2).transpose(1, 2)  # (1, n, width)
    codes = torch.cat([module.token, codes], dim=1) + module.positions
    *before, last = module.layers
    for layer in before:
        codes = layer(codes)
    token, patches = codes[:, :1], codes[:, 1:]
    side = int(patches.shape[1] ** 0.5)

    def answer(maps: Tensor) -> Tensor:
        mixed = last(torch.cat([token, maps.flatten(2).transpose(1, 2)], dim=1))
        return module.head(module.norm(mixed[:, 0]))

    return patches.transpose(1, 2).unflatten(2, (side, side)), answer


def activation(features: Tensor, gradient: Tensor) -> Tensor:
    """ReLU of the channels (1, C, h, w), weighted by their mean gradients: (h, w)."""
    weights = gradient.mean((2, 3), keepdim=True)
    return torch.relu((weights * features).sum(1))[0]


def _scaled_up(active: Tensor, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Scale (h, w) up to (row, col), the highest value 1."""
    size = (shape[0], shape[1])
    large = nn.functional.interpolate(active[None, None], size, mode="bilinear")[0, 0]
    top = large.max()
    return (large / top if top > 0 else large).numpy()


def telling_cells(
    predicted: ArrayLike, true: ArrayLike, n: int = 3
) -> dict[str, NDArray[np.int64]]:
    """Pick the cells whose maps tell most: the best, the typical and the worst estimates."""
    predicted, true = np.asarray(predicted, float), np.asarray(true, float)
    if predicted.ndim != 1 or predicted.shape != true.shape or n < 1:
        raise InputError(
            f"telling_cells got {predicted.shape} predictions, {true.shape} truths and n = {n}; "
            "expected as many of one as of the other, and a positive n"
        )
    error = np.abs(predicted - true)
    lived_in = np.flatnonzero(np.isfinite(error) & ((true > 0) | (predicted > PEOPLE)))
    ordered = lived_in[np.argsort(error[lived_in], kind="stable")]
    each = min(n, len(ordered) // 3)
    middle = (len(ordered) - each) // 2
    return {
        "best": ordered[:each],
        "typical": ordered[middle : middle + each],
        "worst": ordered[::-1][:each],
    }
