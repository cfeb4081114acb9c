"""Trained models: networks built, their scaling, their file, their mean, and leakage.

Sellebjerg et al. take 8-bit grey to [0, 1] and then (x − 0.5) / 0.5. Here white, the mean and the
standard deviation may be others, per band, and travel with the weights.

What a network says of a cell depends on its weights, its architecture and the normalisation of the
image; what its figures are worth depends on the cells that it learned from. They are kept together,
as safetensors with the rest as JSON in the header, so that reading a file runs no code from it.

On the CPU the last bit of an answer may depend on the shape of the batch. `TrainedModel.predict`
therefore computes in batches of one shape, the last one filled up: a cell's answer is then the same
whatever cells come with it.

The mean of several models is one, too: what each of them gets wrong by itself averages out. The
members keep their own scaling and say what they say alone; the mean is of probabilities, or of
people. It is a network like any other, so it is stored, sent to workers and estimated with as one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike, NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from popdask._repr_html import html_card
from popdask.blocks.torch import AsBytes, fixed_arithmetic, pack, pick_device, unpack
from popdask.errors import InputError
from popdask.imagery.features import FEATURES_NETWORK, FeatureModel
from popdask.imagery.networks import (
    CountCNN,
    Network,
    PopulationViT,
    PresenceCNN,
    fused,
    parameter_count,
)


@dataclass(frozen=True)
class Normalisation:
    """A linear map per band: x / white, minus the mean, over the standard deviation.

    Examples
    --------
    >>> scaling = Normalisation.half("uint8", bands=1)
    >>> scaling(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist()
    [[[[-1.0, 1.0]]]]
    """

    white: float
    """The value that becomes 1: 255 for 8-bit images."""
    mean: tuple[float, ...]
    """Per band, after the division by white."""
    std: tuple[float, ...]
    """Per band, after the division by white."""

    def __post_init__(self) -> None:
        if not self.white > 0 or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise InputError(
                f"the normalisation is {self.white}, {self.mean}, {self.std}, expected white and "
                "standard deviations above 0, and one mean and deviation per band"
            )

    @classmethod
    def half(cls, dtype: DTypeLike, bands: int = 1, white: float | None = None) -> Normalisation:
        """Take [0, white] to [−1, 1]; white is the type's largest number (1 for floats)."""
        dtype = np.dtype(dtype)
        largest = np.iinfo(dtype).max if dtype.kind in "ui" else 1.0
        return cls(float(white or largest), (0.5,) * bands, (0.5,) * bands)

    @classmethod
    def of_bands(cls, images: NDArray, white: float | None = None) -> Normalisation:
        """Take each band of images (n, band, row, col) to mean 0 and deviation 1."""
        plain = cls.half(images.dtype, images.shape[1], white)
        if images.dtype.kind == "f":
            images = np.where(np.isnan(images), images.dtype.type(0), images)
        means = images.mean((0, 2, 3), dtype=np.float64) / plain.white
        deviations = images.std((0, 2, 3), dtype=np.float64) / plain.white
        deviations[deviations == 0] = 1.0  # a constant band says nothing
        return cls(plain.white, tuple(means.tolist()), tuple(deviations.tolist()))

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.mean)

    def unit(self, images: Tensor) -> Tensor:
        """Take raw images (n, band, row, col) to float32, white to 1, what has no data to 0."""
        if images.is_floating_point():
            images = torch.where(images.isnan(), 0.0, images)  # a ring may reach beyond the mosaic
        return images.to(torch.float32).div_(self.white)  # of an array of our own

    def centre(self, images: Tensor) -> Tensor:
        """Take images in units of white to the input of the network."""
        mean, std = (images.new_tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        return (images - mean).div_(std).contiguous(memory_format=torch.channels_last)

    def __call__(self, images: Tensor) -> Tensor:
        """Take raw images (n, band, row, col) to the input of the network, float32."""
        return self.centre(self.unit(images))


NETWORKS: dict[str, type[Network]] = {
    **{network.__name__: network for network in (PresenceCNN, CountCNN, PopulationViT)},
    FEATURES_NETWORK: FeatureModel,
}


def build(config: Mapping[str, Any]) -> Network:
    """Build a network from its configuration: its name under "network", and its arguments."""
    arguments = dict(config)
    name = arguments.pop("network", None)
    if name not in NETWORKS:
        raise InputError(f"the network is {name!r}, expected one of {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**arguments)
    except TypeError as error:
        raise InputError(f"{name} cannot be built ({error}); correct its settings") from error


def build_with(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Network:
    """Build a network around weights that it has already."""
    with torch.device("meta"):
        network = build(config)
    network.load_state_dict(weights, assign=True)
    return network.float()


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
            As for `popdask.imagery.model.build`.
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
        """The configuration of the network, as `popdask.imagery.model.build` takes it."""
        return self.module.config

    @property
    def bands(self) -> int:
        """Bands of an image."""
        return self.normalisation.bands

    def on(self, device: str) -> Network:
        """Return the network as it answers, folded; once on a GPU, its weights there are fixed."""
        place = pick_device(device)
        if place.type == "cpu":  # anew, as weights may have changed; it takes milliseconds
            return fused(self.module)
        if str(place) not in self._copies:
            self._copies[str(place)] = fused(self.module).to(place)
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
            A torch device, or "auto": a GPU where there is one, on which weights are those of the
            first call, whatever is learned later.
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
        mixed = torch.autocast(
            place.type, torch.bfloat16, self.settings.get("precision") == "bfloat16"
        )
        with fixed_arithmetic(threads), torch.inference_mode(), mixed:
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
        return html_card(f"TrainedModel ({self.kind})", rows, curve=losses)

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


KIND_OF_NETWORK: dict[type[Network], str] = {
    PresenceCNN: "presence",
    CountCNN: "count",
    PopulationViT: "transformer",
}


def as_trained(model: TrainedModel | Network, dtype: DTypeLike, pixels: int) -> TrainedModel:
    """Return a model as it is, and a bare network with images of a type scaled to [−1, 1]."""
    if isinstance(model, TrainedModel):
        return model
    if type(model) not in KIND_OF_NETWORK:
        raise InputError(
            f"the model is a {type(model).__name__}, expected a TrainedModel or one of "
            f"{', '.join(network.__name__ for network in KIND_OF_NETWORK)}; train one, or load its "
            "weights"
        )
    scaling = Normalisation.half(dtype, int(model.config["bands"]))
    return TrainedModel(deepcopy(model), KIND_OF_NETWORK[type(model)], scaling, pixels)


class LeakageWarning(UserWarning):
    """A model is evaluated on cells that it learned from."""


def check_leakage(
    model: TrainedModel, north: ArrayLike, east: ArrayLike, *, cell_size: float | None = None
) -> int:
    """Warn where cells that are being evaluated were trained on."""
    ratio = cell_size / model.cell_size if cell_size else 1.0
    evaluated = np.stack([np.asarray(north), np.asarray(east)], axis=1).astype(np.int64)
    trained = model.training_cells
    if ratio > 1:  # the centres of small cells, counted in large ones
        trained = np.floor((trained + 0.5) / ratio).astype(np.int64)
    looked_for = np.floor((evaluated + 0.5) * min(ratio, 1.0)).astype(np.int64)
    known = set(map(tuple, trained.tolist()))
    leaked = sum(tuple(cell) in known for cell in looked_for.tolist())
    if leaked:
        warnings.warn(
            f"leakage: {leaked} of the {len(evaluated)} cells being evaluated were trained on; "
            "evaluate on the validation cells of the split that the model was trained with",
            LeakageWarning,
            stacklevel=2,
        )
    return leaked


MEAN = "mean"  # the name of this network in settings


class MeanNetwork(Network):
    """The mean of what several networks say of raw images."""

    def __init__(self, kind: str, members: Sequence[Mapping[str, Any]], bands: int) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"network": MEAN, "kind": kind, "bands": bands}
        self.config["members"] = [dict(member) for member in members]
        self.members = nn.ModuleList(build(member["config"]) for member in members)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit of the mean probability, or the mean number of people."""
        said = []
        for member, module in zip(self.config["members"], self.members, strict=True):
            scaling = Normalisation(member["white"], tuple(member["mean"]), tuple(member["std"]))
            inputs = scaling(x).contiguous(memory_format=torch.channels_last)
            said.append(answer(member["kind"], module(inputs)))
        mean = torch.stack(said).mean(0)
        return torch.logit(mean, 1e-7) if self.config["kind"] == "presence" else mean


NETWORKS[MEAN] = MeanNetwork


def mean_of(models: Sequence[TrainedModel]) -> TrainedModel:
    """Join models of one question, trained on the same split, into their mean."""
    if not models:
        raise InputError("there are no models to take the mean of; expected some; give them")
    first = models[0]
    for name in ("pixels", "cell_size", "resolution", "context", "bands", "split"):
        found = [getattr(model, name) for model in models]
        if any(value != found[0] and value == value for value in found):
            raise InputError(
                f"the {name} of the models is {', '.join(map(str, found))}; expected the same, as "
                "of models trained on one split of the cells; train them together"
            )
    kinds = {"presence" if model.kind == "presence" else "people" for model in models}
    if len(kinds) > 1:
        raise InputError(
            "some of the models are of presence and others of people; expected one or the other"
        )
    members = [
        {"kind": model.kind, "config": dict(model.config)}
        | {name: getattr(model.normalisation, name) for name in ("white", "mean", "std")}
        for model in models
    ]
    kind = "count" if first.kind == "transformer" else first.kind
    module = MeanNetwork(kind, members, first.bands)
    for own, model in zip(module.members, models, strict=True):
        own.load_state_dict(model.module.state_dict())
    raw = Normalisation(1.0, (0.0,) * first.bands, (1.0,) * first.bands)
    seen = np.unique(np.concatenate([model.training_cells for model in models]), axis=0)
    settings: dict[str, Any] = {"members": [dict(model.settings) for model in models]}
    precisions = {model.settings.get("precision") for model in models}
    plain = any(model.config["network"] == FEATURES_NETWORK for model in models)
    if len(precisions) == 1 and None not in precisions and not plain:
        settings["precision"] = precisions.pop()
    return replace(
        first, module=module, kind=kind, normalisation=raw, training_cells=seen, settings=settings,
        figures={}, history=(),
    )  # fmt: skip
