"""Networks built from their configuration, with weights of their own or with given ones."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from popdask.errors import InputError
from popdask.imagery.models.cnn import CountCNN, PresenceCNN
from popdask.imagery.models.network import Network
from popdask.imagery.models.transformer import PopulationViT

NETWORKS: dict[str, type[Network]] = {
    network.__name__: network for network in (PresenceCNN, CountCNN, PopulationViT)
}


def build(config: Mapping[str, Any]) -> Network:
    """Build a network from its configuration: its name under "network", and its arguments.

    Parameters
    ----------
    config : mapping
        As the attribute ``config`` of every network here.

    Returns
    -------
    Network
        A torch module.

    Raises
    ------
    InputError
        If the name or an argument is unknown, or no network can have its value.

    Examples
    --------
    >>> build({"network": "CountCNN", "blocks": 3, "base": 8}).config["blocks"]
    3
    """
    arguments = dict(config)
    name = arguments.pop("network", None)
    if name not in NETWORKS:
        raise InputError(f"the network is {name!r}, expected one of {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**arguments)
    except TypeError as error:
        raise InputError(f"{name} cannot be built ({error}); correct its settings") from error


def build_with(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Network:
    """Build a network around weights that it has already.

    Parameters
    ----------
    config : mapping
        As for `build`.
    weights : mapping of str to Tensor
        Its state; the tensors become the network's own.

    Returns
    -------
    Network
        Without a number drawn at random.

    Raises
    ------
    InputError
        As `build` does.
    RuntimeError
        If names or shapes are others than the configuration asks for.

    Examples
    --------
    >>> network = CountCNN(blocks=2, base=4)
    >>> again = build_with(network.config, network.state_dict())
    >>> torch.equal(again.head[-1].weight, network.head[-1].weight)
    True
    """
    with torch.device("meta"):
        network = build(config)
    network.load_state_dict(weights, assign=True)
    return network.float()
