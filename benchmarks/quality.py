"""How good estimates of a drawn country are: by features, by small networks, and by baselines.

Three countries by seed. In each the models learn from one mosaic, of which whole squares are kept
to choose epochs and penalties by, and estimate another, of another place, which they have not seen;
the truth is known. The perfect observer knows every house, but not who lives in it. Sums have
intervals that hold 90 % of draws of whole squares: in so small a place they err by some percent
without any bias. The rows of means have those of the three, that of the errors without their sign.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import xarray as xr

from benchmarks.machine import Machine, Row, duration
from popdask.imagery.cells import cells_grid, split_cells
from popdask.imagery.cutting import cut_cells
from popdask.imagery.estimate import Joining, estimate
from popdask.imagery.evaluation import evaluate, fit_baselines, prediction_table
from popdask.imagery.loading import TrainingConfig
from popdask.imagery.model import TrainedModel, mean_of
from popdask.imagery.training import train
from popdask.synthetic import OrthophotoWorld, drawn_orthophoto

SEEDS = (0, 1, 2)
LEARNED, UNSEEN = (12.0, 12.0), (8.0, 8.0)  # km
CELL = 100.0
AXES = ("north", "east")
ENDS = ("relative_error_low", "relative_error_high")
BLOCK = 5  # cells a side of the squares that are kept to choose by, and drawn for intervals
EAST = 100_000.0  # metres from the place that is learned to the one that is not seen
PRESENCE = TrainingConfig(
    {"widths": (8, 16, 32, 64), "hidden": (64,)},
    epochs=12,
    batch_size=64,
    rate=2e-3,
    weight_decay=1e-4,
    patience=1,
    threads=1,
)
COUNT = TrainingConfig(
    {"blocks": 4, "base": 8, "hidden": 64, "extra": False, "dropout": 0.1},
    epochs=40,
    batch_size=16,
    rate=1e-3,
    weight_decay=1e-4,
    patience=3,
    threads=1,
)
HEADS = [
    TrainingConfig({"network": "features", "head": head}, threads=1)
    for head in ("boosting", "ridge")
]


@dataclass(frozen=True)
class Method:
    """Models, and how they see a country."""

    presence: list[TrainingConfig]
    count: list[TrainingConfig]
    rule: Joining
    resolution: float  # metres


METHODS = {
    "features": Method(HEADS, HEADS, "expected", 2.0),
    "networks": Method([PRESENCE], [COUNT], "gate", 1.0),
}


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Score every seed by every method; then the means over them."""
    shape = (2.0, 2.0) if quick else None
    for name, method in METHODS.items():
        found, minutes = list[pd.DataFrame](), list[float]()
        for seed in SEEDS[:1] if quick else SEEDS:
            scores, spent = judged(seed, method, shape, epochs=1 if quick else None)
            found.append(scores)
            minutes.append(spent)
            yield _row(f"quality of {name}, seed {seed}", scores, spent)
        if len(found) > 1:
            sums = [scores.assign(relative_error=abs(scores.relative_error)) for scores in found]
            plain = [each.drop(columns=list(ENDS)) for each in sums]
            means = sum(plain) / len(plain), sum(minutes) / len(minutes)
            yield _row(f"quality of {name}, mean", *means)


def judged(
    seed: int,
    method: Method,
    shape: tuple[float, float] | None = None,
    epochs: int | None = None,
) -> tuple[pd.DataFrame, float]:
    """Train on a mosaic, estimate another: scores by method, and the seconds of the processor."""
    known = drawn_orthophoto(shape or LEARNED, seed=seed, resolution=method.resolution)
    there = (known.origin[0] + EAST, known.origin[1])
    unseen = drawn_orthophoto(
        shape or UNSEEN, seed=seed, origin=there, resolution=method.resolution
    )
    cells = cut_cells(known.image, known.people())
    # The scored cells lie elsewhere, so those for validation are there to choose by.
    block = BLOCK if shape is None else 2
    cells = split_cells(cells, validation=0.2, block=block, seed=seed).compute()
    changes: dict[str, Any] = {"epochs": epochs} if epochs else {}
    start = time.process_time()
    models = [
        _trained(cells, kind, [replace(each, seed=seed, **changes) for each in configs])
        for kind, configs in (("presence", method.presence), ("count", method.count))
    ]
    spent = time.process_time() - start
    return evaluate(predictions(cells, unseen, method.rule, *models), block=BLOCK), spent


def _trained(cells: xr.Dataset, kind: str, configs: list[TrainingConfig]) -> TrainedModel:
    """One model, or the mean of several."""
    models = [train(cells, kind, config, device="cpu") for config in configs]
    return models[0] if len(models) == 1 else mean_of(models)


def predictions(
    cells: xr.Dataset, unseen: OrthophotoWorld, rule: Joining, *models: TrainedModel
) -> dict[str, pd.DataFrame]:
    """Estimate the unseen mosaic by every method: a table of its cells each."""
    image, people = unseen.image.persist(), unseen.people()
    there = cut_cells(image, people)
    truth = there["people"].values
    found = estimate(image, *models, cell_size=CELL, rule=rule).compute()
    at = {"x": (there["east"] + 0.5) * CELL, "y": (there["north"] + 0.5) * CELL}
    found, perfect = found.sel(at, method="nearest"), unseen.expected().sel(at, method="nearest")
    grid = cells_grid(there)
    codes = [grid.code(*place) for place in zip(*(there[i].values for i in AXES), strict=True)]
    of_cells = partial(prediction_table, truth=truth, cell=codes)
    tables = {"popdask": of_cells(found["population"], presence=found["presence"])}
    for name, baseline in fit_baselines(cells).items():
        presence, counted = baseline.predict(there["images"].data)
        tables[name] = of_cells(counted, presence=presence)
    return tables | {"ceiling": of_cells(perfect)}


def _row(part: str, scores: pd.DataFrame, spent: float) -> Row:
    """Return the scores of a seed, or their means."""
    told = {name: _score_text(scores.loc[name]) for name in scores.index}
    peers = "; ".join(f"{name} {told[name]}" for name in ("mean per cell", "regression"))
    cells = f"{scores.cells.iloc[0]:.0f} cells not seen"
    return Row(
        part,
        cells,
        f"{told['popdask']}, trained in {duration(spent)}",
        peers,
        limit=f"perfect observer {told['ceiling']}",
        also="Matthews correlation, R² of people, error of their sum",
    )


def _score_text(scores: pd.Series) -> str:
    low, high = (scores.get(end) for end in ENDS)
    drawn = "" if low is None else f" [{low:+.1%}, {high:+.1%}]"
    return f"{scores.matthews:.3f} {scores.r2:.3f} {scores.relative_error:+.1%}{drawn}"
