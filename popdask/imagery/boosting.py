"""Fit plain features: boosted trees whose number is chosen on cells set aside, or a ridge.

What was set aside is learned from, too, once the number of trees is known: those cells lie in
squares of their own, and a fifth of the training cells is much where few are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from xarray import Dataset

from popdask.blocks.torch import fixed_arithmetic
from popdask.errors import InputError
from popdask.imagery.cells import SELECTION, TRAINING
from popdask.imagery.features import FeatureModel
from popdask.imagery.loading import CellImages, Chosen, TrainingConfig

History = list[dict[str, float]]
Known = tuple[NDArray[np.float32], NDArray[np.float64]]  # features (cell, feature), what is wanted
LEAF_PENALTY = 5.0  # of trees
PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4)  # of a ridge, to choose from
SAMPLE, SAMPLE_VALUES = 4000, 2**26  # cells that patches are taken from, and their pixels, at most


def fit_features(
    cells: Dataset, kind: str, config: TrainingConfig, sides: Chosen
) -> tuple[FeatureModel, History]:
    """Fit the head of a feature model; give it, and the losses by the number of trees."""
    blank = FeatureModel(**_arguments(config.network))
    people = cells["people"].values
    wanted = (people > 0).astype(np.float64) if kind == "presence" else people
    if kind == "presence" and len(np.unique(wanted[sides.training])) < 2:
        raise InputError(
            "the training cells are all inhabited or all empty, expected some of both for "
            "presence; give more cells or another split"
        )
    inner = sides.selection is not sides.validation
    limit = threadpool_limits(config.threads) if config.threads else nullcontext()
    with limit, fixed_arithmetic(config.threads or CPU_COUNT):
        if blank.patches is not None:
            blank.patches.fit(_sample(cells, config), config.other_bands, config.seed)
        learned, chosen = (
            (_features(cells, side, config, blank), wanted[side]) for side in sides[:2]
        )
        fit = _boosted if blank.config["head"] == "boosting" else _ridge
        return fit(kind, blank, config.seed, learned, chosen, inner)


def _arguments(network: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in network.items() if name != "network"}


def _sample(cells: Dataset, config: TrainingConfig) -> NDArray:
    """Images of some cells that are not scored, whoever lives in them."""
    unscored = np.flatnonzero(np.isin(cells["split"].values, (TRAINING, SELECTION)))
    count = max(64, min(SAMPLE, SAMPLE_VALUES // int(np.prod(cells["images"].shape[1:]))))
    chosen = unscored[:: -(-len(unscored) // count)]
    portion = next(CellImages(cells["images"], chosen, 2 * cells["images"].nbytes).portions())
    return portion.images[portion.picks]


def _features(
    cells: Dataset, chosen: NDArray[np.int64], config: TrainingConfig, blank: FeatureModel
) -> NDArray[np.float32]:
    """Describe some cells, read in portions."""
    images = CellImages(cells["images"], chosen, config.memory // 2)
    out: NDArray[np.float32] | None = None
    for portion in images.portions():
        found = blank.describe(portion.images[portion.picks])
        out = np.empty((len(chosen), found.shape[1]), np.float32) if out is None else out
        out[portion.cells] = found
    assert out is not None
    return out


def _boosted(
    kind: str, blank: FeatureModel, seed: int, learned: Known, chosen: Known, inner: bool
) -> tuple[FeatureModel, History]:
    """Grow as many trees as do best on the cells to choose by; then learn from those, too."""
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
    presence, given = kind == "presence", blank.config["l2"]
    penalties = PENALTIES if given is None else (max(given, 1e-9),)

    def fit(known: Known, penalty: float) -> FeatureModel:
        head = LogisticRegression(C=1 / penalty, max_iter=2000) if presence else Ridge(penalty)
        fitted: Pipeline = make_pipeline(StandardScaler(), head).fit(*known)
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
