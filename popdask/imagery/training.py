"""Train a network, or trees and a ridge on plain features, on cells.

After Sellebjerg, Lorentsen, Møller-Jensen, Siddique and Hansen, Population Estimation. Which cells
a network learns from and what it is to say of them is all that tells the kinds apart:

============= ============================================== ============================
kind          cells                                          learns
============= ============================================== ============================
presence      all                                            whether people > 0
count         people > 0, or presence > 0.5 by another model people
transformer   people > 0                                     log(1 + people)
weighted      all, inhabited ones drawn more often           people
============= ============================================== ============================

`train` is a plain function of its arguments, which can be pickled: it runs here or as a Dask task.

Of boosted trees and the ridge, the number of trees and the penalty are chosen on cells set aside.
Those are then learned from, too: they lie in squares of their own, and a fifth of the training
cells is much where few are known.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import nn
from xarray import Dataset

from popdask.blocks.torch import fixed_arithmetic, pick_device
from popdask.errors import InputError
from popdask.imagery.cells import SELECTION, TRAINING, split_fingerprint
from popdask.imagery.features import FEATURES_NETWORK, FeatureModel
from popdask.imagery.loading import (
    CellImages,
    Chosen,
    TrainingConfig,
    choose_cells,
    draw_shares,
    predict_cells,
)
from popdask.imagery.model import Normalisation, TrainedModel, build, build_with
from popdask.imagery.networks import Network
from popdask.imagery.trainer import Loss, Side, Stale, Trainer, resume, start_in_scale
from popdask.metrics.estimates import count_scores, presence_scores

History = list[dict[str, float]]
Known = tuple[NDArray[np.float32], NDArray[np.float64]]  # features (cell, feature), what is wanted
LEAF_PENALTY = 5.0  # of trees
PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4)  # of a ridge, to choose from
SAMPLE, SAMPLE_VALUES = 4000, 2**26  # cells that patches are taken from, and their pixels, at most
_LOSSES: dict[str, Loss] = {
    "presence": nn.functional.binary_cross_entropy_with_logits,
    "count": nn.functional.mse_loss,
    "transformer": nn.functional.mse_loss,
    "weighted": nn.functional.mse_loss,
}
_PEOPLE = ("count", "weighted")  # what their last layer says
VALIDATION_BATCH = 512  # cells of plain features that are answered at once
_running = Lock()


@dataclass(frozen=True)
class Progress:
    """What a training says after an epoch.

    Examples
    --------
    >>> said = Progress(2, 50, training=0.4, validation=0.5, rate=1e-3, best_epoch=1, batch_size=16)
    >>> said.best_epoch < said.epoch
    True
    """

    epoch: int
    epochs: int
    """At most so many."""
    training: float
    """Mean loss over the cells as they were learned from."""
    validation: float
    """Mean loss over the cells that the epoch is chosen by."""
    rate: float
    """The learning rate of the epoch."""
    best_epoch: int
    """The epoch with the lowest such loss so far."""
    batch_size: int
    """Cells per step, halved where memory ran out."""


def train(
    cells: Dataset,
    kind: str,
    config: TrainingConfig | None = None,
    *,
    gate: TrainedModel | None = None,
    checkpoint: str | Path | None = None,
    identity: str = "",
    stale: Stale = "error",
    progress: Callable[[Progress], object] | None = None,
    device: str = "auto",
) -> TrainedModel:
    """Train a network, and keep its best weights.

    Parameters
    ----------
    cells : Dataset
        ``images`` (cell, band, row, col), NumPy or Dask, ``people`` (cell), NaN = unknown, and the
        coordinates north, east and split (cell): 0 training, 1 validation, −1 neither, and 2 for
        those to choose the epoch by (`popdask.imagery.cells.set_aside`); without such, it is chosen
        by the validation cells, whose scores are then too good. Attributes cell_size, resolution
        and context.
    kind : {"presence", "count", "transformer", "weighted"}
        What to learn, and from which cells.
    config : TrainingConfig, optional
        The settings; by default those published for the kind and cells of 100 m.
    gate : TrainedModel, optional
        A model of presence: count learns from the cells where it sees people (> 0.5) instead of
        those where people truly are.
    checkpoint : path, optional
        A file for the state after each epoch. Where it is there, the training goes on from it, with
        the same result. It stays, so that a finished training is not done again.
    identity : str, optional
        What else tells this training from others. A checkpoint knows its cells by place, people and
        shape, not by their pixels: give, for example, a checksum of the mosaic.
    stale : {"error", "discard"}, optional
        What to do with a checkpoint of another training, or of more epochs than are asked for:
        refuse it, or start anew, which replaces it after the first epoch.
    progress : callable, optional
        Called after each epoch with a `popdask.imagery.training.Progress`: epoch, losses, rate.
    device : str, optional
        A torch device, or "auto": a GPU where there is one.

    Returns
    -------
    TrainedModel
        With the weights of the lowest loss on the cells to choose by, that loss and its epoch, and
        its scores on the validation cells: accuracy and matthews, or mse, mae, r2 and
        relative_error of the total. Counts are then multiplied by one number, the figure
        ``scale``, with which the people of the training cells add up.

    Raises
    ------
    InputError
        If there is no split, a side of it has no cells of the kind, the settings do not fit the
        cells, or the checkpoint belongs to another training (its kind StaleCheckpointError). Its
        kind TrainingError, if one cell alone does not fit into memory or the loss is no longer a
        number.

    Warns
    -----
    BatchHalvedWarning
        If memory runs out; the batch is then half as large.
    LeakageWarning
        If the gate was trained with another split.
    StaleCheckpointWarning
        If a stale checkpoint is discarded.

    Notes
    -----
    Eager. The loss is binary cross-entropy for presence and the squared error for the others, by
    Adam or AdamW; the rate is halved on a plateau. Counts start at the mean and in the scale of the
    training cells. The same seed and number of threads give the
    same weights on one kind of machine. On a GPU, steps use bfloat16 where that is safe (autocast),
    and their last bits may differ from run to run. Trainings of one process wait for one another,
    because torch's random state is the process's.

    Examples
    --------
    >>> import dask.array as da
    >>> from popdask.imagery.cells import make_cells
    >>> from popdask.imagery.grid import CellGrid
    >>> rng = np.random.default_rng(0)
    >>> people = rng.integers(0, 2, 40).astype(float)
    >>> images = rng.integers(0, 50, (40, 1, 8, 8)) + (200 * people[:, None, None, None])
    >>> place = np.arange(40)
    >>> cells = make_cells(da.asarray(images.astype("uint8")), people, place, place, CellGrid(100))
    >>> cells = cells.assign_coords(split=("cell", np.int8(place % 4 == 0)))
    >>> network = {"widths": (4, 4), "hidden": (8,)}
    >>> config = TrainingConfig(network, epochs=6, batch_size=4, rate=0.01, threads=1)
    >>> train(cells, "presence", config, device="cpu").figures["accuracy"]
    1.0
    """
    config = config or TrainingConfig.preset(kind)
    sides = choose_cells(cells, kind, gate, config, device)
    network = config.network_for(kind, **image_shape(cells))
    if network["network"] == FEATURES_NETWORK:
        return _fitted(cells, kind, replace(config, network=network), sides, device)
    mark = _mark(cells, kind, config, network, sides, identity)
    kept = resume(checkpoint, mark, config.epochs, stale) if checkpoint else None
    threads = kept.plain["threads"] if kept else config.threads or CPU_COUNT
    config = replace(config, network=network, threads=threads)
    training, selection = (_side(cells, kind, config, chosen) for chosen in sides[:2])
    training = replace(training, shares=draw_shares(cells["people"].values[sides[0]], config))
    place = pick_device(device)
    with _alone(place), fixed_arithmetic(threads), torch.enable_grad():
        torch.manual_seed(config.seed)
        module = build(network)
        start_in_scale(module, *_scale(kind, training))
        scaling = _normalisation(cells, training.images.chosen, config)
        trainer = Trainer(module, _LOSSES[kind], scaling, config, place)
        if kept:
            trainer.restore(kept)
        while not trainer.finished:
            row = trainer.run_epoch(training, selection)
            if checkpoint:
                trainer.state().save(checkpoint, mark)
            if progress:
                progress(Progress(epochs=config.epochs, best_epoch=trainer.best_epoch, **row))
    module = build_with(network, trainer.best)
    model = _as_trained(cells, kind, module, scaling, sides.seen, config, trainer.history)
    how: dict[str, Any] = {"batch_size": trainer.batch_size, "threads": threads, "device": device}
    people = cells["people"].values
    if kind in _PEOPLE:
        said = predict_cells(model, cells, sides.training, **how)
        model = _levelled(model, said, people[sides.training])
    said = predict_cells(model, cells, sides.validation, **how)
    figures = {"loss": trainer.best_loss, "epoch": float(trainer.best_epoch)}
    figures |= _scores(kind, said, people[sides.validation])
    return replace(model, figures={**figures, **model.figures})


@contextmanager
def _alone(place: torch.device) -> Iterator[None]:
    """Have torch's random state for oneself, and put it back."""
    devices = [place] if place.type == "cuda" else []
    with _running, torch.random.fork_rng(devices):
        yield


def image_shape(cells: Dataset) -> dict[str, int]:
    """Bands, pixels along a side, and pixels of the ring around the cell."""
    _, bands, pixels, columns = cells["images"].transpose("cell", "band", "row", "col").shape
    if pixels != columns:
        raise InputError(
            f"the images have {pixels} x {columns} pixels, expected squares; cut them with "
            "cut_cells"
        )
    context = int(cells.attrs.get("context", 0))
    return {"bands": bands, "pixels": pixels, "ring": pixels // (2 * context + 1) * context}


def _side(cells: Dataset, kind: str, config: TrainingConfig, chosen: NDArray[np.int64]) -> Side:
    people = cells["people"].values[chosen]
    targets = {"presence": people > 0, "transformer": np.log1p(people)}.get(kind, people)
    images = CellImages(cells["images"], chosen, config.memory // 2)
    return Side(images, targets.astype(np.float32))


def _scale(kind: str, side: Side) -> tuple[float, float]:
    """Mean of the network's output if it said the same of every cell, and the targets' spread."""
    targets = side.targets.astype(np.float64)
    mean = float(np.average(targets, weights=side.shares))
    if kind == "presence":
        mean = min(max(mean, 1e-3), 1 - 1e-3)
        return math.log(mean / (1 - mean)), 1.0
    spread = np.average((targets - mean) ** 2, weights=side.shares) ** 0.5
    return mean, float(spread) or 1.0


def _normalisation(
    cells: Dataset, chosen: NDArray[np.int64], config: TrainingConfig
) -> Normalisation:
    images = cells["images"].transpose("cell", "band", "row", "col")
    if config.normalise == "half":
        return Normalisation.half(images.dtype, images.shape[1], config.white)
    sample = chosen[:: max(1, len(chosen) // 1000)]
    (portion,) = CellImages(images, sample, sample.size * images[:1].nbytes).portions()
    return Normalisation.of_bands(portion.images[portion.picks], config.white)


def _mark(
    cells: Dataset,
    kind: str,
    config: TrainingConfig,
    network: dict[str, Any],
    sides: Chosen,
    identity: str,
) -> str:
    """Tell this training from others: its cells and settings, but for the number of epochs."""
    settings = {**config.as_dict(), "kind": kind, "network": network, "epochs": 0}
    settings["identity"] = identity
    images = cells["images"]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(f"{images.dtype} {dict(images.sizes)}".encode())
    for chosen in sides:
        for name in ("north", "east", "people"):
            digest.update(np.ascontiguousarray(cells[name].values[chosen]).tobytes())
    return digest.hexdigest()


def _as_trained(
    cells: Dataset,
    kind: str,
    module: Network,
    scaling: Normalisation,
    seen: NDArray[np.int64],
    config: TrainingConfig,
    history: History,
) -> TrainedModel:
    """Put a network together with how it was trained, and the cells that it knows."""
    places = np.stack([cells[name].values for name in ("north", "east")], axis=1)
    return TrainedModel(
        module,
        kind,
        scaling,
        pixels=image_shape(cells)["pixels"],
        cell_size=float(cells.attrs["cell_size"]),
        resolution=float(cells.attrs["resolution"]),
        context=int(cells.attrs.get("context", 0)),
        settings=config.as_dict(),
        training_cells=places[seen].astype(np.int64),
        split=split_fingerprint(cells),
        history=tuple(history),
    )


def _fitted(
    cells: Dataset, kind: str, config: TrainingConfig, sides: Chosen, device: str
) -> TrainedModel:
    """Fit a model of plain features, and score it on the validation cells."""
    module, history = fit_features(cells, kind, config, sides)
    bands = image_shape(cells)["bands"]
    raw = Normalisation(1.0, (0.0,) * bands, (1.0,) * bands)
    best = min(history, key=lambda row: row["validation"])
    model = _as_trained(cells, kind, module, raw, sides.seen, config, history)
    said = predict_cells(model, cells, sides.validation, device=device, batch_size=VALIDATION_BATCH)
    scores = _scores(kind, said, cells["people"].values[sides.validation])
    return replace(model, figures={"loss": best["validation"], "epoch": best["epoch"], **scores})


def _levelled(
    model: TrainedModel, said: NDArray[np.float32], people: NDArray[np.float64]
) -> TrainedModel:
    """Scale a network's counts so that the people of the cells it has learned from add up."""
    # Without dropout and variation, and where no count is below 0, it says a few percent more
    # than it learned to: little in a cell, much in the sum of a country.
    total = said.astype(np.float64).sum()
    scale = float(people.sum() / total) if total and people.any() else 1.0
    last = model.module.get_submodule("head")[-1]  # type: ignore[index]
    with torch.no_grad():
        last.weight.mul_(scale)
        last.bias.mul_(scale)
    return replace(model, figures={"scale": scale})


def _scores(kind: str, said: NDArray[np.float32], people: NDArray[np.float64]) -> dict[str, float]:
    """Score what a model of a kind says of cells."""
    if kind == "presence":
        presence = presence_scores(said, people)
        return {"accuracy": presence.accuracy, "matthews": presence.matthews}
    counts = asdict(count_scores(said, people))
    return {name: counts[name] for name in ("mse", "mae", "r2", "relative_error")}


def fit_features(
    cells: Dataset, kind: str, config: TrainingConfig, sides: Chosen
) -> tuple[FeatureModel, History]:
    """Fit the head of a feature model; give it, and the losses by the number of trees."""
    blank = FeatureModel(**_arguments(config.network))
    people = cells["people"].values
    wanted = (people > 0).astype(np.float64) if kind == "presence" else people
    inner = sides.selection is not sides.validation
    limit = threadpool_limits(config.threads) if config.threads else nullcontext()
    with limit, fixed_arithmetic(config.threads or CPU_COUNT):
        if blank.patches is not None:
            blank.patches.fit(_sample(cells), config.other_bands, config.seed)
        learned, chosen = (
            (
                CellImages(cells["images"], side, config.memory // 2).map(blank.describe),
                wanted[side],
            )
            for side in sides[:2]
        )
        fit = _boosted if blank.config["head"] == "boosting" else _ridge
        return fit(kind, blank, config.seed, learned, chosen, inner)


def _arguments(network: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in network.items() if name != "network"}


def _sample(cells: Dataset) -> NDArray:
    """Images of some cells that are not scored, whoever lives in them."""
    unscored = np.flatnonzero(np.isin(cells["split"].values, (TRAINING, SELECTION)))
    count = max(64, min(SAMPLE, SAMPLE_VALUES // int(np.prod(cells["images"].shape[1:]))))
    chosen = unscored[:: -(-len(unscored) // count)]
    portion = next(CellImages(cells["images"], chosen, 2 * cells["images"].nbytes).portions())
    return portion.images[portion.picks]


def _boosted(
    kind: str, blank: FeatureModel, seed: int, learned: Known, chosen: Known, inner: bool
) -> tuple[FeatureModel, History]:
    """Grow as many trees as do best on the cells to choose by; then learn from those, too."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    presence, settings = kind == "presence", blank.config
    maker = HistGradientBoostingClassifier if presence else HistGradientBoostingRegressor

    def grow(known: Known, trees: int) -> Any:
        return maker(
            max_iter=trees,
            learning_rate=settings["rate"],
            max_leaf_nodes=settings["leaves"],
            min_samples_leaf=settings["least"],
            l2_regularization=LEAF_PENALTY if settings["l2"] is None else settings["l2"],
            early_stopping=False,
            random_state=seed,
        ).fit(*known)

    grown = grow(learned, settings["trees"])
    stages = "staged_decision_function" if presence else "staged_predict"
    losses = [
        [_loss(presence, said.ravel(), truth) for said in getattr(grown, stages)(features)]
        for features, truth in (learned, chosen)
    ]
    kept = int(np.argmin(losses[1])) + 1
    history = [
        {"epoch": i + 1, "training": a, "validation": b, "rate": settings["rate"]}
        for i, (a, b) in enumerate(zip(*losses, strict=True))
    ]
    if inner:
        grown = grow(_both(learned, chosen), kept)
    trees = [stage[0].nodes for stage in grown._predictors[:kept]]
    return _as_model(blank, trees, float(np.ravel(grown._baseline_prediction)[0])), history


def _both(learned: Known, chosen: Known) -> Known:
    return np.concatenate([learned[0], chosen[0]]), np.concatenate([learned[1], chosen[1]])


def _as_model(blank: FeatureModel, trees: list[Any], start: float) -> FeatureModel:
    """Take trees over as arrays of their nodes."""
    nodes, ends = np.concatenate(trees), np.cumsum([0, *map(len, trees)])
    shift = np.repeat(ends[:-1], np.diff(ends))
    leaf = nodes["is_leaf"].astype(bool)
    sides = np.stack([nodes["left"] + shift, nodes["right"] + shift], 1).astype(np.int32)
    exact = np.where(leaf, 0.0, nodes["num_threshold"])
    threshold = exact.astype(np.float32)
    high = threshold > exact
    threshold[high] = np.nextafter(threshold[high], np.float32(-np.inf))
    arrays = {
        "start": np.array([start], np.float32),
        "value": nodes["value"].astype(np.float32),
        "threshold": threshold,
        "feature": np.where(leaf, 0, nodes["feature_idx"]).astype(np.int32),
        "sides": np.where(leaf[:, None], -1, sides).astype(np.int32),
        "roots": ends[:-1].astype(np.int32),
    }
    return _filled(blank, arrays, nodes=len(nodes), grown=len(trees))


def _filled(blank: FeatureModel, arrays: dict[str, NDArray[Any]], **sizes: int) -> FeatureModel:
    """A model that sees what a blank one sees, with an answer of its own."""
    model = FeatureModel(**_arguments(blank.config) | sizes)
    fitted = {name: torch.from_numpy(array) for name, array in arrays.items()}
    seen = {name: each for name, each in blank.state_dict().items() if name.startswith("patches")}
    model.load_state_dict({**model.state_dict(), **seen, **fitted})
    return model


def _ridge(
    kind: str, blank: FeatureModel, seed: int, learned: Known, chosen: Known, inner: bool
) -> tuple[FeatureModel, History]:
    """Fit weights of the standardised features, logistic for presence."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    presence, given = kind == "presence", blank.config["l2"]
    penalties = PENALTIES if given is None else (max(given, 1e-9),)

    def fit(known: Known, penalty: float) -> FeatureModel:
        head = LogisticRegression(C=1 / penalty, max_iter=2000) if presence else Ridge(penalty)
        fitted = make_pipeline(StandardScaler(), head).fit(*known)
        scaler, head = fitted[0], fitted[1]
        weights = np.ravel(head.coef_) / scaler.scale_
        arrays = {"start": np.ravel(head.intercept_), "value": weights, "threshold": scaler.mean_}
        return _filled(blank, {name: array.astype(np.float32) for name, array in arrays.items()})

    models = [fit(learned, penalty) for penalty in penalties]
    history = []
    for number, model in enumerate(models, 1):
        training, validation = (
            _loss(presence, model.answer(features), truth) for features, truth in (learned, chosen)
        )
        row = {"epoch": number, "training": training, "validation": validation, "rate": 1.0}
        history.append(row)
    best = int(np.argmin([row["validation"] for row in history]))
    return fit(_both(learned, chosen), penalties[best]) if inner else models[best], history


def _loss(presence: bool, said: NDArray[Any], truth: NDArray[np.float64]) -> float:
    """Cross-entropy of logits, or squared error of people."""
    said = said.astype(np.float64)
    if presence:
        return float(np.mean(np.logaddexp(0, said) - truth * said))
    return float(np.mean(np.square(said - truth)))
