"""A trained network with all that its answers depend on, as one object and as one file.

What a network says of a cell depends on its weights, its architecture and the normalisation of the
image; what its figures are worth depends on the cells that it learned from. They are kept together,
as safetensors with the rest as JSON in the header, so that reading a file runs no code from it.

On the CPU the last bit of an answer may depend on the shape of the batch. `TrainedModel.predict`
therefore computes in batches of one shape, the last one filled up: a cell's answer is then the same
whatever cells come with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from popdask.arithmetic import fixed_arithmetic
from popdask.cards import card
from popdask.devices import pick_device
from popdask.errors import InputError
from popdask.imagery.models.building import build, build_with
from popdask.imagery.models.network import Network, parameter_count
from popdask.imagery.models.normalise import Normalisation
from popdask.tensor_files import AsBytes, pack, unpack

KINDS = ("presence", "count", "transformer", "weighted")
HEADER = "popdask.model"  # the metadata entry that makes a safetensors file ours
CELLS = "popdask.training_cells"  # the tensor beside the weights


@dataclass(frozen=True, eq=False, repr=False)
class TrainedModel(AsBytes):
    """A trained network, with all that its answers depend on.

    It is picklable, as safetensors bytes, so it can travel to a Dask worker as one key.

    Examples
    --------
    >>> network = {"network": "PresenceCNN", "widths": (4, 8), "hidden": (8,)}
    >>> model = TrainedModel.untrained("presence", network, pixels=20)
    >>> model.predict(np.zeros((3, 1, 20, 20), np.uint8)).shape
    (3,)
    >>> model
    TrainedModel(presence, PresenceCNN of 2,133 parameters, cells of 1 x 20 x 20, untrained)
    """

    module: Network
    """On the CPU, in float32, set to evaluation."""
    kind: str
    """"presence", "count", "transformer" or "weighted"."""
    normalisation: Normalisation
    pixels: int
    """Rows and columns of an image, those of its surroundings included."""
    cell_size: float = float("nan")
    """Side of a cell, in units of the CRS."""
    resolution: float = float("nan")
    """Side of a pixel, in units of the CRS."""
    context: int = 0
    """Cells of the ring that is seen around the cell."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained."""
    training_cells: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64))
    """North and east of the cells that it learned from, (n, 2)."""
    split: str = ""
    """Fingerprint of the split of cells into training and validation."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Its scores on the validation cells."""
    history: Sequence[Mapping[str, float]] = ()
    """Per epoch: epoch, training and validation loss, rate."""
    _copies: dict[str, Network] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        self.module.cpu().eval().requires_grad_(False)
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def untrained(
        cls,
        kind: str,
        network: Mapping[str, Any],
        *,
        pixels: int,
        dtype: str = "uint8",
        seed: int = 0,
        **fields: Any,
    ) -> TrainedModel:
        """Give a network its initial weights, to measure or try with; the same for the same seed.

        Parameters
        ----------
        kind : str
            "presence", "count", "transformer" or "weighted".
        network : mapping
            As for `popdask.imagery.models.build`.
        pixels : int
            Rows and columns of an image.
        dtype : str, optional
            Of the images.
        seed : int, optional
            Of the initial weights.
        **fields
            Other fields, such as `cell_size`, `resolution` and `context`.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build(network)
        scaling = Normalisation.half(dtype, module.config["bands"])
        return cls(module, kind, scaling, pixels, **fields)

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration of the network, as `popdask.imagery.models.build` takes it."""
        return self.module.config

    @property
    def bands(self) -> int:
        """Bands of an image."""
        return self.normalisation.bands

    def on(self, device: str) -> Network:
        """Give the network on a device; it is copied there once."""
        place = pick_device(device)
        if place.type == "cpu":
            return self.module
        if str(place) not in self._copies:
            self._copies[str(place)] = deepcopy(self.module).to(place)
        return self._copies[str(place)]

    def predict(
        self, images: NDArray, *, device: str = "cpu", batch_size: int = 16, threads: int = 1
    ) -> NDArray[np.float32]:
        """Say of each cell how probably people live there, or how many do.

        Parameters
        ----------
        images : ndarray, (n, band, row, col)
            Raw, as they were cut.
        device : str, optional
            A torch device, or "auto": a GPU where there is one.
        batch_size : int, optional
            Cells per batch. All batches have this shape, so a small one suits few cells. Another
            shape may change the last bit of the answers.
        threads : int, optional
            Threads of torch; the same holds.

        Returns
        -------
        ndarray of float32, (n,)
            Probability for a model of presence, otherwise people, at least 0.

        Raises
        ------
        InputError
            If the images have other bands, rows or columns than those it learned from.
        """
        expected = (self.bands, self.pixels, self.pixels)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise InputError(
                f"the images are {images.shape}, expected (n, {expected[0]}, {expected[1]}, "
                f"{expected[2]}) for this model; cut them with its cell size, resolution and ring"
            )
        module, place = self.on(device), pick_device(device)
        batch = torch.zeros((batch_size, *expected), device=place)
        answers = []
        with fixed_arithmetic(threads), torch.inference_mode():
            for start in range(0, len(images), batch_size):
                raw = np.ascontiguousarray(images[start : start + batch_size])
                batch[: len(raw)] = self.normalisation(torch.from_numpy(raw).to(place))
                inputs = batch.contiguous(memory_format=torch.channels_last)
                answers.append(answer(self.kind, module(inputs))[: len(raw)])
        return torch.cat(answers).cpu().numpy() if answers else np.empty(0, np.float32)

    def to_bytes(self) -> bytes:
        """Serialise as safetensors, everything but the weights as JSON in the header."""
        scaling = self.normalisation
        header = {
            "config": self.config,
            "kind": self.kind,
            "normalisation": [scaling.white, scaling.mean, scaling.std],
            **{name: getattr(self, name) for name in _PLAIN},
            "settings": dict(self.settings),
            "figures": dict(self.figures),
            "history": [dict(row) for row in self.history],
        }
        tensors = {name: tensor.contiguous() for name, tensor in self.module.state_dict().items()}
        tensors[CELLS] = torch.from_numpy(np.ascontiguousarray(self.training_cells, np.int64))
        return pack(tensors, HEADER, header)

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "model") -> TrainedModel:
        """Read what `to_bytes` wrote; `name` is what an InputError calls the data."""
        try:
            tensors, header = unpack(data, HEADER)
        except SafetensorError as error:
            raise InputError(
                f"{name} is not safetensors ({error}); expected weights that popdask saved, as "
                "pickled weights can run code; train again or convert them"
            ) from error
        except KeyError:
            raise InputError(
                f"{name} holds weights without popdask's header; expected a file that "
                "TrainedModel.save wrote; train with popdask"
            ) from None
        cells = tensors.pop(CELLS).numpy()
        module = _built(header["config"], tensors, name)
        white, mean, std = header["normalisation"]
        plain = {key: header[key] for key in (*_PLAIN, "settings", "figures", "history")}
        scaling = Normalisation(white, tuple(mean), tuple(std))
        return cls(module, header["kind"], scaling, training_cells=cells, **plain)

    def _repr_html_(self) -> str:
        """What it is, what it sees and how good it is, as a notebook shows it."""
        sides = 2 * self.context + 1
        rows = {
            "says": "whether people live in a cell"
            if self.kind == "presence"
            else "how many people",
            "network": f"{self.config['network']}, {parameter_count(self.module):,} parameters",
            "sees": f"{self.bands} × {self.pixels} × {self.pixels} pixels, "
            f"{sides} × {sides} cells of {self.cell_size:g}",
            "learned from": f"{len(self.training_cells):,} cells, {len(self.history)} epochs",
            **{f"validation {name}": f"{value:.4g}" for name, value in self.figures.items()},
        }
        losses = [epoch["validation"] for epoch in self.history if "validation" in epoch]
        return card(f"TrainedModel ({self.kind})", rows, curve=losses)

    def __repr__(self) -> str:
        epochs = f"{len(self.history)} epochs" if self.history else "untrained"
        return (
            f"TrainedModel({self.kind}, {self.config['network']} of "
            f"{parameter_count(self.module):,} parameters, cells of {self.bands} x {self.pixels} x "
            f"{self.pixels}, {epochs})"
        )


_PLAIN = ("pixels", "cell_size", "resolution", "context", "split")


def answer(kind: str, output: Tensor) -> Tensor:
    """Turn a network's output (B,) into a probability, or into people from 0 up."""
    output = output.float()
    if kind == "presence":
        return torch.sigmoid(output)
    return (torch.expm1(output) if kind == "transformer" else output).clamp(min=0)


def _built(config: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> Network:
    try:
        return build_with(config, tensors)
    except RuntimeError as error:
        shown = " ".join(str(error).split())[:300]
        raise InputError(
            f"the weights in {name} do not match its configuration {config} ({shown}); expected "
            "those of one training; give the file that TrainedModel.save wrote"
        ) from error
