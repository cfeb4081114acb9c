"""What training is fed with: its settings, which cells and how often, and augmented images.

Sellebjerg, Lorentsen, Møller-Jensen, Siddique and Hansen, Population Estimation, trained on grey
orthophotos of 0.5 m, on cells of 100 m and of 300 m. `TrainingConfig.preset` has their settings.

What happens to an image is drawn by its place in the epoch, so it does not depend on the batches.

Where the images fit into the memory that is granted, they are read once, and an epoch is one
shuffled portion. Otherwise an epoch shuffles runs of 64 cells, reads as many runs as fit into half
of the memory, and shuffles the cells in such a portion, while the next one is being read. The order
depends on the seed and on the memory granted, not on the chunks of the store.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import dask
import numpy as np
import torch
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from torch import Tensor
from xarray import DataArray, Dataset

from popdask.errors import InputError
from popdask.imagery.cells import SELECTION, TRAINING, VALIDATION, split_fingerprint
from popdask.imagery.features import FEATURES_NETWORK, LEAST, SIDE
from popdask.imagery.model import KINDS, LeakageWarning, TrainedModel, build

OPTIMIZERS = ("adam", "adamw")
FLIPS = ("none", "horizontal", "both")
NORMALISATIONS = ("half", "bands")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained.

    Examples
    --------
    >>> TrainingConfig.preset("count", "300m").batch_size
    16
    """

    network: Mapping[str, Any] = field(default_factory=dict)
    """Name of the network, under "network", and its arguments; what is left out is the kind's."""
    epochs: int = 50
    """At most."""
    batch_size: int = 64
    """Cells per step; halved where memory runs out."""
    rate: float = 1e-4
    """Learning rate at the start."""
    weight_decay: float = 0.0
    optimizer: str = "adamw"
    """"adam" or "adamw"."""
    flips: str = "horizontal"
    """"none", "horizontal" (east and west change places) or "both" (north and south too)."""
    jitter: float = 0.2
    """Brightness and contrast are each multiplied by up to 1 ± this much."""
    other_bands: int = 0
    """Bands at the end that are no image: their brightness and contrast stay as they are."""
    normalise: str = "half"
    """"half": [0, white] to [−1, 1]; "bands": each band by its mean and standard deviation."""
    white: float | None = None
    """The brightest value; that of the images' type by default (1 for floats)."""
    balance: float = 0.0
    """0 draws cells as they come, 1 every bin of people equally often; between them by a power."""
    bins: int = 10
    """Equal-width bins of people; cells without anybody are one more."""
    patience: int = 5
    """Epochs without a better validation loss, after which the rate is multiplied by `factor`."""
    factor: float = 0.5
    stop_after: int = 15
    """Epochs without a better validation loss, after which training ends."""
    precision: str = "float32"
    """"bfloat16" multiplies in 16 bits, in training and when the model answers: faster where the
    processor has instructions for it. GPUs always train so."""
    threads: int | None = None
    """Of torch on the CPU; all cores at hand by default. The result depends on it."""
    memory: int = 2**31
    """Bytes of images to hold; more are read from their store again in every epoch."""
    seed: int = 0
    """Of the initial weights, the order of the cells, augmentation and dropout."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("optimizer", OPTIMIZERS),
            ("flips", FLIPS),
            ("normalise", NORMALISATIONS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}"
                )
        for name in ("epochs", "batch_size", "bins", "patience", "stop_after", "memory"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("rate", "weight_decay", "jitter", "balance", "factor"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0.0 to 1.0")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}, expected a whole number, 0 or more; correct it")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}, expected at least 1, or none for all")

    @classmethod
    def preset(cls, kind: str, cells: str = "100m", **changes: Any) -> TrainingConfig:
        """Return the published settings of a kind of model.

        Parameters
        ----------
        kind : str
            "presence", "count", "transformer" or "weighted" (not published: those of the count).
        cells : {"100m", "300m"}, optional
            For which cells they were found.
        **changes
            Settings to be replaced.

        Raises
        ------
        InputError
            If there is no such kind, size or setting.
        """
        if kind not in KINDS or cells not in ("100m", "300m"):
            raise InputError(
                f"there are no settings of {kind!r} for {cells!r}, expected one of "
                f"{', '.join(KINDS)} for 100m or 300m"
            )
        if unknown := set(changes) - set(cls.__dataclass_fields__):
            raise InputError(
                f"training has no setting {', '.join(sorted(unknown))}; expected some of "
                f"{', '.join(cls.__dataclass_fields__)}"
            )
        return replace(_PUBLISHED[kind, cells], **changes)

    def network_for(self, kind: str, *, bands: int, pixels: int, ring: int) -> dict[str, Any]:
        """Complete the network's configuration by what the cells and the kind of model say.

        Raises
        ------
        InputError
            If there is no such network, it cannot be built, or the cells have too few pixels.
        """
        name = self.network.get("network", _NETWORK_OF[kind])
        seen = {"pixels": pixels} if name == "PopulationViT" else {"ring": ring}
        if name == FEATURES_NETWORK and kind == "transformer":
            raise InputError(
                "kind is 'transformer' for the network 'features'; expected presence, count or "
                "weighted; change the kind or the network"
            )
        config = {"network": name, "bands": bands, **seen, **self.network}
        with torch.device("meta"):
            network = build(config)
        least = 2 ** len(getattr(network, "features", ()))
        use = f"the blocks of {name}, each of which halves them"
        if name == FEATURES_NETWORK:
            least = LEAST if network.patches is None else SIDE
            use = f"the edges and patches among the {name}"
        if pixels < least:
            raise InputError(
                f"the cells have {pixels} x {pixels} pixels, expected at least {least} for {use}; "
                "use smaller pixels or more of them"
            )
        return config

    def whole_network(self, kind: str) -> dict[str, Any]:
        """Complete the network's configuration by its defaults: equal, however it is written."""
        with torch.device("meta"):
            return build({"network": _NETWORK_OF[kind], **self.network}).config

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        return asdict(self)


_NETWORK_OF = {
    "presence": "PresenceCNN",
    "count": "CountCNN",
    "transformer": "PopulationViT",
    "weighted": "CountCNN",
}

_COUNT_100M = TrainingConfig(batch_size=32, rate=9.18e-5, weight_decay=4e-4)
_COUNT_300M = TrainingConfig(
    network={"network": "CountCNN", "blocks": 4, "base": 32, "extra": False, "dropout": 0.3},
    batch_size=16,
    rate=3e-4,
    weight_decay=1e-4,
)
_PRESENCE = TrainingConfig(rate=8.59e-5, weight_decay=1.7e-4, optimizer="adam")
_TRANSFORMER = TrainingConfig(batch_size=16, balance=1.0)
_PUBLISHED = {
    ("presence", "100m"): _PRESENCE,
    ("presence", "300m"): replace(_PRESENCE, network={"network": "PresenceCNN", "dropout": 0.183}),
    ("count", "100m"): _COUNT_100M,
    ("count", "300m"): _COUNT_300M,
    ("transformer", "100m"): _TRANSFORMER,
    ("transformer", "300m"): _TRANSFORMER,
    ("weighted", "100m"): replace(_COUNT_100M, balance=0.5),
    ("weighted", "300m"): replace(_COUNT_300M, balance=0.5),
}


@dataclass(frozen=True, eq=False)
class Augmentation:
    """What is done to each image of an epoch."""

    flips: NDArray[np.bool_]
    """Mirror it along its columns, along its rows: (n, 2)."""
    brightness: NDArray[np.float32]
    """Factor, (n,)."""
    contrast: NDArray[np.float32]
    """Factor of the distance to the image's mean, (n,)."""

    @classmethod
    def draw(
        cls, n: int, rng: np.random.Generator, *, flips: str = "horizontal", jitter: float = 0.2
    ) -> Augmentation:
        """Draw for n images; half of them are mirrored along an axis that is asked for."""
        axes = {"none": (False, False), "horizontal": (True, False), "both": (True, True)}[flips]
        mirrored = (rng.random((n, 2)) < 0.5) & np.array(axes)
        factors = rng.uniform(1 - jitter, 1 + jitter, (2, n)).astype(np.float32)
        return cls(mirrored, factors[0], factors[1])

    def mirror(self, images: Tensor, places: slice) -> Tensor:
        """Mirror images (n, band, row, col) at these places in the epoch."""
        dtype = images.dtype
        if dtype == torch.uint16:  # which torch cannot flip
            images = images.view(torch.int16)
        for axis, chosen in ((3, self.flips[places, 0]), (2, self.flips[places, 1])):
            if chosen.any():
                turned = torch.from_numpy(chosen.copy()).to(images.device)[:, None, None, None]
                images = torch.where(turned, images.flip(axis), images)
        return images.view(dtype)

    def relight(self, images: Tensor, places: slice, others: int = 0) -> Tensor:
        """Vary brightness and contrast of images (n, band, row, col) in units of white."""
        # Values stay within [0, 1], or what the image itself has beyond it: floats are often not
        # in units of white. The last `others` bands are no image: they stay as they are.
        if others:
            images, plain = images[:, :-others], images[:, -others:]
        brightness, contrast = (
            torch.from_numpy(factor[places]).to(images.device)[:, None, None, None]
            for factor in (self.brightness, self.contrast)
        )
        whole = (1, 2, 3)
        low = images.amin(whole, keepdim=True).clamp_(max=0)  # aminmax takes five times as long
        high = images.amax(whole, keepdim=True).clamp_(min=1)
        varied = (images * brightness).clamp_(low, high)
        mean = varied.mean(whole, keepdim=True)
        varied.sub_(mean).mul_(contrast).add_(mean).clamp_(low, high)
        return torch.cat([varied, plain], 1) if others else varied


RUN = 64  # cells that are read together
PIECE = 1024  # cells whose images are copied together


class Portion(NamedTuple):
    """Images in memory, and which of them to take, in which order."""

    images: NDArray
    """(m, band, row, col), raw."""
    picks: NDArray[np.int64]
    """Indices along the first axis of `images`, (n,)."""
    cells: NDArray[np.int64]
    """The same cells as they were asked for, (n,)."""


class CellImages:
    """The images of some cells."""

    def __init__(self, images: DataArray, chosen: NDArray[np.int64], memory: int) -> None:
        self.images = images.transpose("cell", "band", "row", "col")
        self.chosen = chosen
        self.each = self.images[:1].nbytes
        self.memory = memory
        self.held: NDArray | None = None
        if images.chunks is None:
            self.held = self.images.values
        elif self.each * len(chosen) <= memory:
            self.held = np.empty((0,)) if len(chosen) == 0 else self._read(np.arange(len(chosen)))

    def __len__(self) -> int:
        return len(self.chosen)

    def portions(
        self, order: NDArray[np.int64] | None = None, rng: np.random.Generator | None = None
    ) -> Iterator[Portion]:
        """Return the images in portions."""
        order = np.arange(len(self)) if order is None else order
        if self.held is not None:
            picks = self.chosen[order] if self.images.chunks is None else order
            yield Portion(self.held, picks, order)
            return
        parts = self._parts(order, rng)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._portion, parts[0])
            for following in [*parts[1:], None]:
                portion = coming.result()
                if following is not None:
                    coming = reader.submit(self._portion, following)
                yield portion

    def map(self, describe: Callable[[NDArray], NDArray]) -> NDArray:
        """Give what is found in the images, some at a time, in the order of the cells."""
        out: NDArray | None = None
        for portion in self.portions():
            for start in range(0, max(len(portion.picks), 1), PIECE):
                piece = slice(start, start + PIECE)
                found = describe(portion.images[portion.picks[piece]])
                if out is None:
                    out = np.empty((len(self), *found.shape[1:]), found.dtype)
                out[portion.cells[piece]] = found
        assert out is not None, "there is a portion, if only of no cells"
        return out

    def _parts(
        self, order: NDArray[np.int64], rng: np.random.Generator | None
    ) -> list[NDArray[np.int64]]:
        """Cut an order of cells into parts of whole runs, each within half of the memory."""
        runs = order // RUN
        found = np.unique(runs)
        size = max(1, self.memory // 2 // (self.each * RUN))
        if rng is not None:
            found = rng.permutation(found)
        rank = np.empty(runs.max() + 1, np.int64)
        rank[found] = np.arange(len(found)) // size
        parts = [order[rank[runs] == part] for part in range(rank[found].max() + 1)]
        return [np.sort(part) if rng is None else rng.permutation(part) for part in parts]

    def _portion(self, cells: NDArray[np.int64]) -> Portion:
        read, picks = np.unique(cells, return_inverse=True)
        return Portion(self._read(read), picks, cells)

    def _read(self, cells: NDArray[np.int64]) -> NDArray:
        # By this process's own threads: the images have to end up here, and a task that waited for
        # other tasks of its cluster could wait for itself.
        with dask.config.set(scheduler="threads"):
            return self.images.isel(cell=self.chosen[cells]).values


def predict_cells(
    model: TrainedModel,
    cells: Dataset,
    chosen: NDArray[np.int64] | None = None,
    *,
    device: str = "auto",
    batch_size: int = 16,
    threads: int | None = None,
    memory: int = 2**31,
) -> NDArray[np.float32]:
    """Say of cells what a model says of them."""
    chosen = np.arange(cells.sizes["cell"]) if chosen is None else chosen
    options: dict[str, Any] = {"device": device, "batch_size": batch_size}
    predict = partial(model.predict, **options, threads=threads or CPU_COUNT)
    return CellImages(cells["images"], chosen, memory).map(predict)


INHABITED = 0.5  # presence above it
FEW = 0.2  # share of the inhabited cells that a gate must leave for the counts


class GateWarning(UserWarning):
    """A model of presence leaves few of the inhabited cells for the model that counts."""


class Chosen(NamedTuple):
    """The cells of a training, ascending indices."""

    training: NDArray[np.int64]
    """To learn from."""
    selection: NDArray[np.int64]
    """To choose the epoch and the rate by; without an inner split, the validation cells."""
    validation: NDArray[np.int64]
    """To score the model on."""

    @property
    def seen(self) -> NDArray[np.int64]:
        """Cells that a score must not be told of: those learned from, and those chosen by."""
        if self.selection is self.validation:
            return self.training
        return np.union1d(self.training, self.selection)


def choose_cells(
    cells: Dataset,
    kind: str,
    gate: TrainedModel | None,
    config: TrainingConfig,
    device: str = "auto",
) -> Chosen:
    """Choose the cells of a kind of model: to learn from, to choose by, and to score it on."""
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if "split" not in cells.coords:
        raise InputError("the cells have no split; expected one; make it with split_cells")
    people, split = cells["people"].values, cells["split"].values
    wanted = np.isfinite(people) & (split >= 0)
    sides = (TRAINING, SELECTION, VALIDATION)
    chosen_apart = (split == SELECTION).any()
    needed = sides if chosen_apart else (TRAINING, VALIDATION)
    enough = all((wanted & (split == side)).any() for side in needed)
    if gate is not None:
        _check_gate(gate, cells, kind)
        labelled = np.flatnonzero(wanted)
        said = predict_cells(gate, cells, labelled, device=device, threads=config.threads)
        wanted[labelled] = said > INHABITED
        _warn_of_closed_gate(wanted, (people > 0) & (split == TRAINING))
    elif kind in ("count", "transformer"):
        wanted &= people > 0
    training, selection, validation = (np.flatnonzero(wanted & (split == side)) for side in sides)
    if not chosen_apart:
        selection = validation
    if not (len(training) and len(validation) and len(selection)):
        chosen_by = "" if selection is validation else f", {len(selection)} to choose by"
        how = "give more cells or another split"
        if gate is not None and enough:
            how = (
                "the model of presence sees people in too few: let the count learn from inhabited "
                "cells, or train presence longer"
            )
        raise InputError(
            f"there are {len(training)} training{chosen_by} and {len(validation)} validation cells "
            f"for {kind}, expected some of each; {how}"
        )
    one_class = len(np.unique(people[training] > 0)) < 2
    if one_class and kind == "presence" and config.network.get("network") == FEATURES_NETWORK:
        raise InputError(
            "the training cells are all inhabited or all empty, expected some of both for "
            "presence; give more cells or another split, or count people everywhere "
            '([count] kind = "weighted")'
        )
    return Chosen(training, selection, validation)


def _warn_of_closed_gate(passed: NDArray[np.bool_], inhabited: NDArray[np.bool_]) -> None:
    """Warn where a gate leaves few of the truly inhabited training cells."""
    left, there = np.count_nonzero(passed & inhabited), np.count_nonzero(inhabited)
    if left < FEW * there:
        warnings.warn(
            f"the model of presence leaves {left:,} of {there:,} truly inhabited training cells "
            "for the model that counts; expected at least a fifth: let it learn from inhabited "
            "cells, or train presence longer",
            GateWarning,
            stacklevel=4,
        )


def _check_gate(gate: TrainedModel, cells: Dataset, kind: str) -> None:
    if gate.kind != "presence" or kind != "count":
        raise InputError(
            f"the gate is a model of {gate.kind} for training {kind}, expected one of presence for "
            "training count; leave it out or change the kind"
        )
    if gate.split != split_fingerprint(cells):
        warnings.warn(
            "leakage: the gate was trained with another split of the cells, so it may know the "
            "validation cells; train all models with one split",
            LeakageWarning,
            stacklevel=4,
        )


def draw_shares(people: NDArray[np.float64], config: TrainingConfig) -> NDArray[np.float64] | None:
    """How often to draw each cell: bins of people with n cells, n to the power 1 − balance."""
    if config.balance == 0:
        return None
    inhabited = people[people > 0]
    edges = np.histogram_bin_edges(inhabited, config.bins)[1:-1]
    bins = np.where(people > 0, 1 + np.searchsorted(edges, people, side="right"), 0)
    weights = np.bincount(bins)[bins] ** -config.balance
    return weights / weights.sum()
