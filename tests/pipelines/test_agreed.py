"""What a run of a population job would refuse, its plan refuses: in the same words, and no more."""

import numpy as np
import pandas as pd
import pytest
import rasterio

from popdask.errors import InputError
from popdask.workflow import population
from popdask.workflow.population_inputs import Sources, labelled_cells
from tests.pipelines.dots import job, write_world

FEATURES = {"network": "features", "epochs": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dots")
    write_world(folder, years=[2015])
    return folder


def counted(world, folder, change):
    """A table of the people of the world's cells, changed."""
    table = pd.read_parquet(world / "people.parquet")
    path = folder / "people.parquet"
    change(table).to_parquet(path, index=False)
    return {"counts": str(path)}


def verdict(what, settings):
    """What a verb says of a job."""
    try:
        what(settings)
    except InputError as error:
        return str(error)
    return "taken"


def few(table):
    return table.assign(people=table["people"] * (np.arange(len(table)) < 6))


@pytest.mark.parametrize(
    ("change", "tables", "words"),
    [
        (pd.DataFrame.copy, {}, "taken"),
        (lambda table: table.assign(people=1), {"presence": FEATURES}, "all inhabited or all emp"),
        (lambda table: table.assign(people=1), {}, "taken"),
        (few, {"cells": {"validation": 0.1}}, "cells for count, expected some of each"),
        (pd.DataFrame.copy, {"cells": {"split": "blocks", "folds": 3, "block": 10}}, "folds is 3"),
        (
            pd.DataFrame.copy,
            {"cells": {"split": "blocks", "block": 5, "gap": 5, "folds": 2}},
            "no training cell is more than 5 cells away",
        ),
        (pd.DataFrame.copy, {"cells": {"totals": 20}}, "lie in one square"),
        (pd.DataFrame.copy, {"cells": {"totals": 3}}, "taken"),
        (lambda table: table[:20], {"intervals": {"level": 0.9}}, "level is 0.9, for which"),
    ],
)
def test_a_plan_and_a_run_say_the_same_of_the_cells(world, tmp_path, change, tables, words):
    cells = tables.get("cells", {}) | counted(world, tmp_path, change)
    settings = job(world, tmp_path / "dots.icechunk", truth=None, **tables | {"cells": cells})
    planned = verdict(population.plan, settings)
    assert words in planned
    assert verdict(population.train, settings) == planned


@pytest.fixture
def half(world, tmp_path):
    """Few inhabited cells, of which half lack pixels."""
    with rasterio.open(world / "mosaic_2015.tif") as file:
        image, profile = file.read(1), file.profile
    image[:, image.shape[1] // 2 :] = 0
    with rasterio.open(tmp_path / "half.tif", "w", **profile | {"nodata": 0}) as file:
        file.write(image, 1)
    return counted(world, tmp_path, few) | {"mosaic": str(tmp_path / "half.tif")}


def test_cells_that_lack_pixels_do_not_speak_against_a_job(world, half, tmp_path):
    """Of all cells, none to validate by may be drawn, and some of those that have pixels."""
    cells = half | {"seed": 56}
    settings = job(world, tmp_path / "dots.icechunk", truth=None, cells=cells | {"validation": 0.4})
    unseen, _, _ = labelled_cells(settings, Sources.of(settings), unseen=True)
    with pytest.raises(InputError, match="1 to choose by and 0 validation cells for count"):
        population.check_sides(settings, unseen)
    assert verdict(population.plan, settings) == verdict(population.train, settings) == "taken"


def test_a_plan_says_what_a_gap_costs(world, tmp_path):
    cells = {"split": "blocks", "block": 5, "gap": 1, "folds": 2}
    plan = population.plan(job(world, tmp_path / "dots.icechunk", truth=None, cells=cells))
    assert [sentence[:14] for sentence in plan.warnings] == ["the gap of 1 c"]


def test_a_gap_is_told_of_the_cells_that_have_pixels(world, half, tmp_path):
    """Of all cells the run would have none to learn from; of those with pixels it has some."""
    split = {"split": "blocks", "block": 2, "gap": 1, "validation": 0.4, "seed": 4}
    settings = job(world, tmp_path / "dots.icechunk", truth=None, cells=half | split)
    (sentence,) = population.plan(settings).warnings
    assert sentence.startswith("the gap of 1 cells costs 18 of 32 training cells")
