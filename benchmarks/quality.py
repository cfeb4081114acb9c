"""How good estimates of a drawn country are: small networks, trained on two cores, and baselines.

Three countries by seed. In each the networks learn from one mosaic and estimate another, of another
place, which they have not seen; the truth is known. The perfect observer knows every house, but
not who lives in it. The last row has the means of the three, that of the errors without their sign.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
import xarray as xr

from benchmarks.machine import Machine, Row, duration
from popdask.imagery.cells import split_cells
from popdask.imagery.cutting import cut_cells
from popdask.imagery.estimate import estimate
from popdask.imagery.evaluation import evaluate, fit_baselines, prediction_table
from popdask.imagery.loading import TrainingConfig
from popdask.imagery.model import TrainedModel
from popdask.imagery.training import train
from popdask.synthetic import OrthophotoWorld, drawn_orthophoto

SEEDS = (0, 1, 2)
LEARNED, UNSEEN = (12.0, 12.0), (8.0, 8.0)  # km
CELL, RESOLUTION = 100.0, 1.0
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


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Score every seed; then the means over them."""
    shape = (1.0, 1.0) if quick else None
    found, minutes = list[pd.DataFrame](), list[float]()
    for seed in SEEDS[:1] if quick else SEEDS:
        scores, spent = judged(seed, shape, epochs=1 if quick else None)
        found.append(scores)
        minutes.append(spent)
        yield _row(f"quality, seed {seed}", scores, spent)
    if len(found) > 1:
        sums = [scores.assign(relative_error=abs(scores.relative_error)) for scores in found]
        yield _row("quality, mean", sum(sums) / len(sums), sum(minutes) / len(minutes))


def judged(
    seed: int, shape: tuple[float, float] | None = None, epochs: int | None = None
) -> tuple[pd.DataFrame, float]:
    """Train on a mosaic, estimate another: scores by method, and the seconds of the processor."""
    known = drawn_orthophoto(shape or LEARNED, seed=seed, resolution=RESOLUTION)
    there = (known.origin[0] + EAST, known.origin[1])
    unseen = drawn_orthophoto(shape or UNSEEN, seed=seed, origin=there, resolution=RESOLUTION)
    cells = split_cells(
        cut_cells(known.image, known.people()), kind="random", validation=0.15, seed=seed
    ).compute()
    changes: dict[str, Any] = {"epochs": epochs} if epochs else {}
    start = time.process_time()
    models = [
        train(cells, kind, replace(config, seed=seed, **changes), device="cpu")
        for kind, config in (("presence", PRESENCE), ("count", COUNT))
    ]
    spent = time.process_time() - start
    return evaluate(predictions(cells, unseen, *models)), spent


def predictions(
    cells: xr.Dataset, unseen: OrthophotoWorld, *models: TrainedModel
) -> dict[str, pd.DataFrame]:
    """Estimate the unseen mosaic by every method: a table of its cells each."""
    image, people = unseen.image.persist(), unseen.people()
    there = cut_cells(image, people)
    truth = there["people"].values
    found = estimate(image, *models, cell_size=CELL).compute()
    at = {"x": (there["east"] + 0.5) * CELL, "y": (there["north"] + 0.5) * CELL}
    found, perfect = found.sel(at, method="nearest"), unseen.expected().sel(at, method="nearest")
    tables = {"popdask": prediction_table(found["population"], truth, found["presence"])}
    for name, baseline in fit_baselines(cells).items():
        presence, counted = baseline.predict(there["images"].data)
        tables[name] = prediction_table(counted, truth, presence)
    return tables | {"ceiling": prediction_table(perfect, truth)}


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
    return f"{scores.matthews:.3f} {scores.r2:.3f} {scores.relative_error:+.1%}"
