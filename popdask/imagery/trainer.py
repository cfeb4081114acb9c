"""Loops of training: of a network on images, and of small ones on the totals of zones.

Everything that changes from epoch to epoch is in one object, whose state can be written down, as
one file that is there whole or not at all, and taken up again. Tensors are safetensors, the rest is
JSON in their header; nothing is pickled. What is drawn at random is drawn anew in every epoch from
the seed and the epoch's number: the number is the random state.

Most countries know the people of municipalities, not of cells. A small network on the plain
features of a cell is trained on sums alone: what it says of the cells of a zone has to add up to
the zone's people, whole zones to a batch. Its answers, scaled so that each zone keeps its total,
are then people of cells that any model learns from as if they had been counted: presence, counts,
boosting or convolutions. The loss is |log(S + 10) − log(T + 10)| and the squared error in units of
the totals' spread, the one for small zones and the other for large ones. The models that follow
smooth out what the network says of single cells, which makes them better than it is (measured on a
city of 18,000 cells in squares of 1 km: R² 0.42 for the network, 0.44 for boosting on its answers).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from popdask.blocks.torch import fixed_arithmetic, pack, unpack
from popdask.errors import InputError
from popdask.imagery.cells import SELECTION, TRAINING
from popdask.imagery.features import cell_features
from popdask.imagery.loading import Augmentation, CellImages, Portion, TrainingConfig
from popdask.imagery.model import Normalisation
from popdask.imagery.networks import Network
from popdask.io.paths import write_bytes

HEADER = "popdask.checkpoint"
Stale = Literal["error", "discard"]

# Of the small networks that learn from totals:
HIDDEN = (64, 32)  # units
DROPOUT, RATE, DECAY = 0.1, 3e-3, 1e-3
EPOCHS, BATCH = 60, 16  # BATCH: zones to a step
STEPS = 6000  # at most: many zones are seen in fewer epochs
MEMBERS = 5  # networks of which the mean is taken
SMALL = 10.0  # people: zones of fewer count little in the logarithm
SQUARES = 2.0  # weight of the squared error
FARTHEST = 5.0  # standard deviations, beyond which features are cut
EMPTY = 0.25  # of the mean people per cell: cells with less are called empty
MEMORY = 2**30  # bytes of images that are held


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
    def load(cls, path: str | Path, training: str) -> Checkpoint | None:
        """Read the state of a training; None where there is no file."""
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
    """Read the state that a training of so many epochs goes on from; None where it starts anew."""
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


Loss = Callable[[Tensor, Tensor], Tensor]


class BatchHalvedWarning(UserWarning):
    """Memory ran out in training, so the batch was halved."""


class TrainingError(InputError):
    """With these settings training cannot go on: memory is too small, or the loss is no number."""


@dataclass(frozen=True, eq=False)
class Side:
    """The cells on one side of the split."""

    images: CellImages
    targets: NDArray[np.float32]
    """What the network is to say of them, (n,)."""
    shares: NDArray[np.float64] | None = None
    """How often each is drawn, sum 1; None: every one once per epoch."""


class Trainer:
    """A training under way."""

    def __init__(
        self,
        module: Network,
        loss: Loss,
        normalisation: Normalisation,
        config: TrainingConfig,
        device: torch.device,
    ) -> None:
        self.module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss, self.normalisation = loss, normalisation
        self.config, self.device = config, device
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        self.optimizer = kind(
            module.parameters(), lr=config.rate, weight_decay=config.weight_decay, fused=True
        )
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=config.factor, patience=config.patience
        )
        self.batch_size = config.batch_size
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.best_loss = math.inf

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to learn."""
        waited = self.epoch - self.best_epoch
        return self.epoch >= self.config.epochs or waited >= self.config.stop_after

    def run_epoch(self, training: Side, validation: Side) -> dict[str, Any]:
        """Learn from every cell once, or as often as it is drawn; give the epoch's figures."""
        seeds = np.random.SeedSequence([self.config.seed, self.epoch])
        torch.manual_seed(int(seeds.generate_state(1)[0]))  # for dropout
        rate = float(self.optimizer.param_groups[0]["lr"])
        learned = self._learn(training, np.random.default_rng(seeds))
        seen = self._look(validation)
        if not (math.isfinite(learned) and math.isfinite(seen)):
            raise TrainingError(
                f"the loss of epoch {self.epoch + 1} is {learned} in training and {seen} in "
                f"validation, expected numbers; lower the rate, which is {rate:g}"
            )
        self.plateau.step(seen)
        row = {
            "epoch": self.epoch + 1,
            "training": learned,
            "validation": seen,
            "rate": rate,
            "batch_size": self.batch_size,
        }
        self.history.append(row)
        if seen < self.best_loss:
            self.best_epoch, self.best_loss = self.epoch, seen
            state = self.module.state_dict()
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        return row

    def _learn(self, side: Side, rng: np.random.Generator) -> float:
        n = len(side.targets)
        order = rng.permutation(n) if side.shares is None else rng.choice(n, n, p=side.shares)
        varied = Augmentation.draw(n, rng, flips=self.config.flips, jitter=self.config.jitter)
        self.module.train()
        before = 0

        def step(images: Tensor, targets: Tensor, places: slice) -> Tensor:
            within = slice(before + places.start, before + places.stop)
            inputs = self.normalisation.unit(varied.mirror(images, within))
            if self.config.jitter:
                inputs = varied.relight(inputs, within, self.config.other_bands)
            self.optimizer.zero_grad()
            with self._mixed(self.device.type == "cuda"):
                output = self.module(self.normalisation.centre(inputs))
            loss = self.loss(output.float(), targets)
            loss.backward()
            self.optimizer.step()
            return loss.detach()

        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for portion in side.images.portions(order, rng):
            total += self._in_batches(portion, side.targets, step)
            before += len(portion.picks)
        return total.item() / n

    def _mixed(self, always: bool = False) -> torch.autocast:
        wanted = always or self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, wanted)

    def _look(self, side: Side) -> float:
        def step(images: Tensor, targets: Tensor, places: slice) -> Tensor:
            with self._mixed():
                output = self.module(self.normalisation(images))
            return self.loss(output.float(), targets)

        self.module.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        with torch.no_grad():
            for portion in side.images.portions():
                total += self._in_batches(portion, side.targets, step)
        return total.item() / len(side.targets)

    def _in_batches(
        self,
        portion: Portion,
        targets: NDArray[np.float32],
        step: Callable[[Tensor, Tensor, slice], Tensor],
    ) -> Tensor:
        """Take a portion in batches that fit into memory; give the sum of the cells' losses."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        start, n = 0, len(portion.picks)
        while start < n:
            places = slice(start, min(start + self.batch_size, n))
            try:
                images = torch.from_numpy(portion.images[portion.picks[places]])
                wanted = torch.from_numpy(targets[portion.cells[places]])
                loss = step(images.to(self.device), wanted.to(self.device), places)
            except torch.OutOfMemoryError as error:
                self._halve_batch(error)
                continue
            total += loss * (places.stop - start)
            start = places.stop
        return total

    def _halve_batch(self, error: torch.OutOfMemoryError) -> None:
        if self.batch_size == 1:
            raise TrainingError(
                f"one cell alone does not fit into the memory of {self.device} ({error}); expected "
                "room for a batch; use a smaller network or another device"
            ) from error
        self.batch_size //= 2
        warnings.warn(
            f"memory of {self.device} ran out in epoch {self.epoch + 1}: the batch is now "
            f"{self.batch_size} cells instead of {self.config.batch_size}",
            BatchHalvedWarning,
            stacklevel=2,
        )

    def state(self) -> Checkpoint:
        """Return all that the next epochs depend on."""
        optimizer = self.optimizer.state_dict()
        moments = {
            f"{i}/{name}": tensor
            for i, kept in optimizer["state"].items()
            for name, tensor in kept.items()
        }
        tensors = {"module": self.module.state_dict(), "best": self.best, "optimizer": moments}
        plain = {
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "batch_size": self.batch_size,
            "threads": self.config.threads,
            "groups": optimizer["param_groups"],
            "plateau": self.plateau.state_dict(),
        }
        return Checkpoint(tensors, plain)

    def restore(self, state: Checkpoint) -> None:
        """Go on from a state."""
        parameters = list(self.module.parameters())
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.tensors["optimizer"].items():
            i, _, key = name.partition("/")
            like = parameters[int(i)]
            if tensor.shape == like.shape:  # fused steps go along the memory of both
                tensor = torch.empty_like(like, requires_grad=False).copy_(tensor)
            moments.setdefault(int(i), {})[key] = tensor
        self.module.load_state_dict(state.tensors["module"])
        self.best = dict(state.tensors["best"])
        self.optimizer.load_state_dict({"state": moments, "param_groups": state.plain["groups"]})
        self.plateau.load_state_dict(state.plain["plateau"])
        self.history = list(state.plain["history"])
        for name in ("best_epoch", "best_loss", "batch_size"):
            setattr(self, name, state.plain[name])


def start_in_scale(module: Network, mean: float, spread: float) -> None:
    """Let an untrained network's answers have the mean and the scale of what it is to learn."""
    # A step of Adam is as long as the rate, whatever the scale of the loss: without this, counts
    # of hundreds take thousands of steps to reach.
    last = module.get_submodule("head")[-1]  # type: ignore[index]
    with torch.no_grad():
        last.weight.mul_(spread)
        last.bias.fill_(mean)


class LearnedTotals(NamedTuple):
    """The zones that are learned from, and which of them each of their cells lies in."""

    cells: NDArray[np.int64]
    zone: NDArray[np.int64]
    totals: NDArray[np.float64]


def learned_totals(cells: xr.Dataset) -> LearnedTotals:
    """Find the zones of training cells."""
    learned = np.flatnonzero(np.isin(cells["split"].values, (TRAINING, SELECTION)))
    names, zone = np.unique(cells["zone"].values[learned], return_inverse=True)
    totals = np.zeros(len(names))
    totals[zone] = cells["total"].values[learned]
    if len(names) < 2 or not totals.any():
        raise InputError(
            f"there are {len(names)} zones with {totals.sum():g} people to learn from; expected "
            "two or more, with people in some: give more or smaller zones"
        )
    return LearnedTotals(learned, zone, totals)


def spread_totals(cells: xr.Dataset, *, seed: int = 0) -> NDArray[np.float64]:
    """Share the people of zones among their cells, by what networks learn from the sums."""
    learned, zone, totals = learned_totals(cells)
    context, pixels = int(cells.attrs["context"]), cells["images"].sizes["col"]
    ring = pixels // (2 * context + 1) * context
    images = CellImages(cells["images"], learned, MEMORY)
    features = _standardised(images.map(partial(cell_features, ring=ring)))
    said = np.mean(
        [_learn_sums(features, zone, totals, seed + number) for number in range(MEMBERS)], axis=0
    )
    people = np.full(cells.sizes["cell"], np.nan)
    people[learned] = _scaled(said, zone, totals)
    return people


def _standardised(features: NDArray[np.float32]) -> Tensor:
    spread = features.std(0) + 1e-6
    near = ((features - features.mean(0)) / spread).clip(-FARTHEST, FARTHEST)
    return torch.from_numpy(near.astype(np.float32))


def _learn_sums(
    features: Tensor, zone: NDArray[np.int64], totals: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """People (cell,) as one network says that has learned from the totals."""
    order = np.argsort(zone, kind="stable")
    starts = np.searchsorted(zone[order], np.arange(len(totals) + 1))
    wanted = torch.from_numpy(totals.astype(np.float32))
    spread = float(totals.std()) or float(totals.mean())
    epochs = max(1, min(EPOCHS, STEPS * BATCH // len(totals)))
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]), fixed_arithmetic(1), torch.enable_grad():
        torch.manual_seed(seed)
        network = _Sums(features.shape[1], totals.sum() / len(zone))
        optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        for _ in range(epochs):
            drawn = rng.permutation(len(totals))
            for start in range(0, len(drawn), BATCH):
                batch = drawn[start : start + BATCH]
                cells = np.concatenate([order[starts[one] : starts[one + 1]] for one in batch])
                place = np.repeat(np.arange(len(batch)), starts[batch + 1] - starts[batch])
                said = network(features[cells])
                sums = torch.zeros(len(batch)).index_add(0, torch.from_numpy(place), said)
                optimizer.zero_grad()
                _loss_of_sums(sums, wanted[batch], spread).backward()
                optimizer.step()
            schedule.step()
        with torch.no_grad():
            return network.eval()(features).double().numpy()


def _loss_of_sums(sums: Tensor, totals: Tensor, spread: float) -> Tensor:
    off = (torch.log(sums + SMALL) - torch.log(totals + SMALL)).abs().mean()
    return off + SQUARES * ((sums - totals) / spread).square().mean()


class _Sums(nn.Module):
    """Features (cell, feature) → people (cell,), never negative."""

    def __init__(self, features: int, mean: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in HIDDEN:
            layers += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(DROPOUT)]
            features = width
        self.layers = nn.Sequential(*layers, nn.Linear(features, 1))
        self.scale = mean / np.log(2)  # the mean, where the last layer says 0

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.scale * nn.functional.softplus(self.layers(x).squeeze(1))
        return said


def _scaled(
    said: NDArray[np.float64], zone: NDArray[Any], totals: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scale people to the totals of their zones; cells with next to nobody are empty."""

    def kept(people: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(zone, people, len(totals))
        factor = np.divide(totals, sums, out=np.zeros_like(sums), where=sums > 0)
        return people * factor[zone]

    people = kept(said)
    some = np.where(people < EMPTY * totals.sum() / len(zone), 0.0, people)
    left = np.bincount(zone, some, len(totals)) > 0
    return kept(np.where(left[zone], some, people))
