"""Take a bare network where a trained model is expected."""

from __future__ import annotations

from copy import deepcopy

from numpy.typing import DTypeLike

from popdask.errors import InputError
from popdask.imagery.models.cnn import CountCNN, PresenceCNN
from popdask.imagery.models.network import Network
from popdask.imagery.models.normalise import Normalisation
from popdask.imagery.models.trained import TrainedModel
from popdask.imagery.models.transformer import PopulationViT

KINDS: dict[type[Network], str] = {
    PresenceCNN: "presence",
    CountCNN: "count",
    PopulationViT: "transformer",
}


def as_trained(model: TrainedModel | Network, dtype: DTypeLike, pixels: int) -> TrainedModel:
    """Give a model as it is, and a bare network with the scaling to [−1, 1] of images of a type.

    Examples
    --------
    >>> as_trained(CountCNN(blocks=1, base=4), "uint8", 20).kind
    'count'
    """
    if isinstance(model, TrainedModel):
        return model
    if type(model) not in KINDS:
        raise InputError(
            f"the model is a {type(model).__name__}, expected a TrainedModel or one of "
            f"{', '.join(network.__name__ for network in KINDS)}; train one, or load its weights"
        )
    scaling = Normalisation.half(dtype, int(model.config["bands"]))
    return TrainedModel(deepcopy(model), KINDS[type(model)], scaling, pixels)
