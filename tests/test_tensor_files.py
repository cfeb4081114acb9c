"""Tensors and plain data come back from their bytes."""

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save

from popdask.blocks.torch import pack, unpack

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, -2])}
PLAIN = {"name": "é", "numbers": [1, 2.5, None]}


def test_what_was_packed_comes_back():
    tensors, plain = unpack(pack(TENSORS, "popdask.test", PLAIN), "popdask.test")
    assert plain == PLAIN
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_what_is_not_ours_is_told_apart_from_what_is_no_file():
    data = pack(TENSORS, "popdask.test", PLAIN)
    with pytest.raises(KeyError, match=r"popdask\.other"):
        unpack(data, "popdask.other")
    with pytest.raises(KeyError, match=r"popdask\.test"):
        unpack(save(TENSORS), "popdask.test")
    for wrong in (b"", b"text", data[:-1]):
        with pytest.raises(SafetensorError):
            unpack(wrong, "popdask.test")
