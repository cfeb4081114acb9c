"""The devices that torch computes on."""

import torch

from popdask.errors import InputError


def pick_device(device: str) -> torch.device:
    """Resolve "auto" to a GPU where there is one.

    Raises
    ------
    InputError
        If there is no such device here.

    Examples
    --------
    >>> pick_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f'device is {device!r}, but torch finds no GPU here; use "auto" or "cpu"')
    try:
        place = torch.device(device)
    except RuntimeError:
        place = None
    if place is None or not _is_here(place):
        raise InputError(
            f'device is {device!r}, which torch does not have here; expected "auto", "cpu" or a '
            'GPU, such as "cuda:0"; correct it'
        )
    return place


def _is_here(place: torch.device) -> bool:
    count = getattr(getattr(torch, place.type, None), "device_count", None)
    return count is not None and (place.index or 0) < count()
