"""Torch held still: fixed arithmetic, where it computes, and models as safetensors.

The plain data is JSON in the file's header, so that reading a file runs no code from it.
"""

import json
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Self

import safetensors.torch
import torch
from torch import Tensor

from popdask.errors import InputError
from popdask.io.paths import write_bytes

_lock = Lock()
_users = 0
_before: tuple[int, tuple[bool, ...]] = (1, ())


@contextmanager
def fixed_arithmetic(threads: int = 1) -> Iterator[None]:
    """Hold torch to a number of threads and full float32, which fixes its sums on one machine."""
    # On a GPU, cuDNN keeps to algorithms that give the same result every time. The settings are
    # the process's, and several Dask threads may be inside at once: what was set before returns
    # when the last of them leaves. Part of the number of threads is the calling thread's own,
    # which returns when it leaves.
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


def pick_device(device: str) -> torch.device:
    """Resolve "auto" to a GPU where there is one."""
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


def pack(tensors: Mapping[str, Tensor], header: str, plain: Any) -> bytes:
    """Write tensors, and plain data under the name of a header entry, which marks whose it is."""
    return safetensors.torch.save(dict(tensors), {header: json.dumps(plain)})


def unpack(data: bytes, header: str) -> tuple[dict[str, Tensor], Any]:
    """Read what `pack` wrote."""
    tensors = safetensors.torch.load(data)
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    return tensors, json.loads(metadata[header])


class AsBytes(ABC):
    """An object that is stored, sent to workers and told apart by its bytes."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Serialise as safetensors; equal objects give equal bytes."""

    @classmethod
    @abstractmethod
    def from_bytes(cls, data: bytes, name: str = ...) -> Self:
        """Read what `to_bytes` wrote; `name` is what an InputError calls the data."""

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all."""
        write_bytes(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` wrote."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}; give a file") from error
        return cls.from_bytes(data, str(path))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_bytes, (self.to_bytes(),)

    def __dask_tokenize__(self) -> bytes:
        return self.to_bytes()
