"""Tensors and plain data as the bytes of one safetensors file: models, and unfinished trainings.

The plain data is JSON in the file's header, so that reading a file runs no code from it.
"""

import json
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import safetensors.torch
from torch import Tensor

from popdask.errors import InputError
from popdask.whole import write_bytes


def pack(tensors: Mapping[str, Tensor], header: str, plain: Any) -> bytes:
    """Write tensors, and plain data under the name of a header entry, which marks whose it is.

    Examples
    --------
    >>> import torch
    >>> unpack(pack({"weight": torch.ones(2)}, "popdask.example", {"a": 1}), "popdask.example")
    ({'weight': tensor([1., 1.])}, {'a': 1})
    """
    return safetensors.torch.save(dict(tensors), {header: json.dumps(plain)})


def unpack(data: bytes, header: str) -> tuple[dict[str, Tensor], Any]:
    """Read what `pack` wrote.

    Raises
    ------
    safetensors.SafetensorError
        If the data is something else.
    KeyError
        If it is safetensors without that header entry.
    """
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
        """Read a file that `save` wrote.

        Raises
        ------
        InputError
            If it is missing or something else, or if its weights do not match its configuration.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}; give a file") from error
        return cls.from_bytes(data, str(path))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_bytes, (self.to_bytes(),)

    def __dask_tokenize__(self) -> bytes:
        return self.to_bytes()
