"""How torch is held still while it computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
