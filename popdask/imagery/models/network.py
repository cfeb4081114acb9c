"""What all networks have in common: the configuration that they were built with, checked.

An image is (B, bands, rows, columns), normalised; forward gives one value per cell, (B,).
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from popdask.errors import InputError


class Network(nn.Module):
    """What the networks here have in common."""

    config: dict[str, Any]
    """The name of the network, under "network", and the arguments that it was built with."""


def parameter_count(module: nn.Module) -> int:
    """Count the trainable parameters of a network.

    Examples
    --------
    >>> parameter_count(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in module.parameters())


def configuration(arguments: Mapping[str, Any], module: nn.Module) -> dict[str, Any]:
    """Take a constructor's arguments from its locals, as plain data; refuse impossible ones."""
    plain = {k: v for k, v in arguments.items() if k not in ("self", "__class__")}
    name = type(module).__name__
    for key, value in plain.items():
        _check_argument(name, key, value)
    return {"network": name, **plain}


def _check_argument(network: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or name == "ring":
        return
    if name == "dropout":
        fits, expected = 0 <= value <= 1, "a share from 0 to 1"
    elif name == "scale":
        fits, expected = value > 0, "a number above 0"
    elif isinstance(value, tuple):
        fits = all(part >= 1 for part in value) and (name != "widths" or len(value) > 0)
        expected = "numbers of at least 1"
    else:
        fits, expected = value >= 1, "at least 1"
    if not fits:
        raise InputError(f"{name} of {network} is {value}, expected {expected}; correct it")
