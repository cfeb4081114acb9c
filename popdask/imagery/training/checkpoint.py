"""The state of an unfinished training, as one file that is there whole or not at all.

Tensors are safetensors, the rest is JSON in their header; nothing is pickled. What is drawn at
random is drawn anew in every epoch from the seed and the epoch's number: the number is the random
state.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from torch import Tensor

from popdask.errors import InputError
from popdask.tensor_files import pack, unpack
from popdask.whole import write_bytes

HEADER = "popdask.checkpoint"
Stale = Literal["error", "discard"]


class StaleCheckpointError(InputError):
    """A checkpoint is the state of another training, or of a longer one than was asked for."""


class StaleCheckpointWarning(UserWarning):
    """A stale checkpoint was discarded: the training starts anew."""


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
        write_bytes(path, pack(flat, HEADER, {"training": training, **self.plain}))

    @classmethod
    def load(cls, path: str | Path, training: str) -> "Checkpoint | None":
        """Read the state of a training; None where there is no file.

        Raises
        ------
        InputError
            If the file is something else; its kind StaleCheckpointError, if it belongs to another
            training.
        """
        if not Path(path).exists():
            return None
        try:
            flat, plain = unpack(Path(path).read_bytes(), HEADER)
        except (SafetensorError, KeyError) as error:
            raise InputError(
                f"{path} is not the state of a training ({error}); expected what popdask wrote; "
                "remove it or name another checkpoint"
            ) from error
        if plain.pop("training") != training:
            raise StaleCheckpointError(
                f"{path} is the state of another training, with other cells or settings; expected "
                "this one's; remove it or name another checkpoint"
            )
        tensors: dict[str, dict[str, Tensor]] = {}
        for name, tensor in flat.items():
            part, _, rest = name.partition("/")
            tensors.setdefault(part, {})[rest] = tensor
        return cls(tensors, plain)


def resume(
    path: str | Path, training: str, epochs: int, stale: Stale = "error"
) -> Checkpoint | None:
    """Read the state that a training of so many epochs goes on from; None where it starts anew.

    Parameters
    ----------
    path : path
        The checkpoint. A stale one that is discarded lies there until the first epoch replaces it.
    training : str
        The training's fingerprint.
    epochs : int
        How many are wanted, at most.
    stale : {"error", "discard"}, optional
        What to do with the state of another training, or of more epochs.

    Raises
    ------
    InputError
        As `Checkpoint.load`; its kind StaleCheckpointError also where more epochs are done than
        are wanted.

    Warns
    -----
    StaleCheckpointWarning
        If a stale state is discarded.
    """
    if stale not in ("error", "discard"):
        raise InputError(f"stale is {stale!r}, expected error or discard; correct it")
    try:
        state = Checkpoint.load(path, training)
        done = len(state.plain["history"]) if state else 0
        if done > epochs:
            raise StaleCheckpointError(
                f"{path} is the state after {done} epochs, expected at most {epochs}; remove it, "
                f"name another checkpoint, or train for {done} epochs"
            )
    except StaleCheckpointError as error:
        if stale == "error":
            raise
        warnings.warn(
            f"training starts anew, because {error}", StaleCheckpointWarning, stacklevel=3
        )
        return None
    return state
