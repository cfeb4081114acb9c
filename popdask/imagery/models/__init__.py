"""The networks, and what a trained one is: weights, scaling and the cells that it has seen."""

from popdask.imagery.models.building import NETWORKS, build, build_with
from popdask.imagery.models.cnn import CountCNN, PresenceCNN
from popdask.imagery.models.leakage import LeakageWarning, check_leakage
from popdask.imagery.models.network import Network, parameter_count
from popdask.imagery.models.normalise import Normalisation
from popdask.imagery.models.trained import KINDS, TrainedModel
from popdask.imagery.models.transformer import PopulationViT

__all__ = [
    "KINDS",
    "NETWORKS",
    "CountCNN",
    "LeakageWarning",
    "Network",
    "Normalisation",
    "PopulationViT",
    "PresenceCNN",
    "TrainedModel",
    "build",
    "build_with",
    "check_leakage",
    "parameter_count",
]
