"""The state of an unfinished training, as one file that is there whole or not at all.

Tensors are safetensors, the rest is JSON in their header; nothing is pickled. What is drawn at
random is drawn anew in every epoch from the seed and the epoch's number: the number is the random
state.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from popdask.errors import InputError
from popdask.imagery.weights import write_whole

HEADER = "popdask.checkpoint"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a training needs to go on."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    """By part ("module", "best", "optimizer"), then by name."""
    plain: Mapping[str, Any]
    """Numbers and text."""

    def save(self, path: str | Path, training: str) -> None:
        """Write it as the state of a training, which is told by its fingerprint."""
        flat = {
            f"{part}/{name}": tensor.detach().cpu().contiguous()
            for part, tensors in self.tensors.items()
            for name, tensor in tensors.items()
        }
        header = {HEADER: json.dumps({"training": training, **self.plain})}
        write_whole(Path(path), safetensors.torch.save(flat, header))

    @classmethod
    def load(cls, path: str | Path, training: str) -> "Checkpoint | None":
        """Read the state of a training; None where there is no file.

        Raises
        ------
        InputError
            If the file is something else, or belongs to another training.
        """
        if not Path(path).exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                plain = json.loads(file.metadata()[HEADER])
                flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is not the state of a training ({error}); expected what popdask wrote; "
                "remove it or name another checkpoint"
            ) from error
        if plain.pop("training") != training:
            raise InputError(
                f"{path} is the state of another training, with other cells or settings; expected "
                "this one's; remove it or name another checkpoint"
            )
        tensors: dict[str, dict[str, Tensor]] = {}
        for name, tensor in flat.items():
            part, _, rest = name.partition("/")
            tensors.setdefault(part, {})[rest] = tensor
        return cls(tensors, plain)
