"""Where torch computes, and how it is held still while it does."""

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def fixed_arithmetic(threads: int) -> Iterator[None]:
    """Hold torch to a number of threads and full float32, which fixes its sums on one machine.

    The number of threads is that of the calling thread alone; it is put back at the end. On a GPU,
    cuDNN keeps to algorithms that give the same result every time. That is the process's setting
    and stays: other threads may be computing.

    Examples
    --------
    >>> with fixed_arithmetic(1):
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(before)
