"""How torch is held still while it computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

_lock = Lock()
_users = 0
_before: tuple[int, tuple[bool, ...]] = (1, ())


@contextmanager
def fixed_arithmetic(threads: int = 1) -> Iterator[None]:
    """Hold torch to a number of threads and full float32, which fixes its sums on one machine.

    On a GPU, cuDNN keeps to algorithms that give the same result every time. The settings are the
    process's, and several Dask threads may be inside at once: what was set before returns when the
    last of them leaves. Part of the number of threads is the calling thread's own, which returns
    when it leaves.

    Parameters
    ----------
    threads : int, optional
        Threads of torch; another number may change the last bit.

    Examples
    --------
    >>> with fixed_arithmetic(1):
    ...     torch.get_num_threads()
    1
    """
    global _users, _before
    own = torch.get_num_threads()
    with _lock:
        if _users == 0:
            _before = (own, _flags())
        _users += 1
        torch.set_num_threads(threads)
        _set_flags(False, False, False, True)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set_flags(*_before[1])
            torch.set_num_threads(own if _users else _before[0])


def _flags() -> tuple[bool, ...]:
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic


def _set_flags(matmul_tf32: bool, cudnn_tf32: bool, benchmark: bool, deterministic: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = matmul_tf32
    torch.backends.cudnn.allow_tf32 = cudnn_tf32
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.deterministic = deterministic
