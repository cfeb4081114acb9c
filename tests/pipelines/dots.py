"""A mosaic in which every person is a bright dot, and a population job that is done in a second."""

import json

import numpy as np
import pandas as pd
import rasterio

from popdask.config import PopulationJob
from popdask.imagery.grid import CellGrid

GRID = CellGrid.preset("dk_100m")
PIXELS = 16
SIDE = 10  # cells
SOUTH, WEST = 61400, 6000


def people(seed=0):
    """People of the cells, north up; six of ten are empty."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, 6, (SIDE, SIDE)) * (rng.random((SIDE, SIDE)) < 0.4)


def picture(counts, seed=0):
    """The image of some cells, with a dot for everyone."""
    rng = np.random.default_rng(seed)
    image = rng.integers(20, 60, (SIDE * PIXELS, SIDE * PIXELS)).astype(np.uint8)
    for row, column in np.argwhere(counts):
        places = rng.permutation((PIXELS - 4) ** 2)[: counts[row, column]]
        for place in places:
            y, x = divmod(int(place), PIXELS - 4)
            image[row * PIXELS + y + 2, column * PIXELS + x + 2] = 250
    return image


def transform(pixels):
    size = GRID.size / pixels
    return rasterio.transform.from_origin(WEST * GRID.size, (SOUTH + SIDE) * GRID.size, size, size)


def write_raster(path, values, pixels):
    shape = {"height": values.shape[0], "width": values.shape[1], "count": 1}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype=values.dtype,
        crs=GRID.crs,
        transform=transform(pixels),
        **shape,
    ) as file:
        file.write(values, 1)


def write_world(folder, years=(2015, 2025)):
    """A mosaic and its people for each year, and the table of the first year's."""
    for seed, year in enumerate(years):
        counts = people(seed)
        write_raster(folder / f"mosaic_{year}.tif", picture(counts, seed), PIXELS)
        write_raster(folder / f"people_{year}.tif", counts.astype(np.float32), 1)
    first = people(0)
    codes = [
        GRID.code(SOUTH + SIDE - 1 - row, WEST + column)
        for row in range(SIDE)
        for column in range(SIDE)
    ]
    table = pd.DataFrame({"cell": codes, "people": first.ravel()})
    table.to_parquet(folder / "people.parquet", index=False)


def settings(folder, store, **tables):
    """The settings of a job on that world; tables of settings are changed by name."""
    training = {"epochs": 2, "batch_size": 16, "rate": 0.01, "threads": 1}
    found = {
        "name": "dots",
        "pipeline": "population",
        "input": {"mosaic": f"{folder}/mosaic_{{time:%Y}}.tif"},
        "cells": {
            "grid": "dk_100m",
            "mosaic": f"{folder}/mosaic_2015.tif",
            "counts": f"{folder}/people.parquet",
            "split": "random",
        },
        "presence": {"network": {"widths": [4, 8], "hidden": [8]}, **training},
        "count": {"network": {"blocks": 2, "base": 4, "hidden": 8, "extra": False}, **training},
        "estimate": {"rule": "gate"},
        "truth": {"counts": f"{folder}/people_{{time:%Y}}.tif"},
        "output": {"store": str(store), "export": []},
    }
    for name, table in tables.items():
        found[name] = found.get(name, {}) | table if table is not None else None
    return found


def job(folder, store, **tables):
    """The job on that world."""
    return PopulationJob.model_validate(settings(folder, store, **tables))


def write_job(path, folder, store, **tables):
    """Write the file of the job on that world."""
    lines = []
    for name, table in settings(folder, store, **tables).items():
        if not isinstance(table, dict):
            lines.append(f"{name} = {json.dumps(table)}")
            continue
        lines.append(f"[{name}]")
        for key, value in table.items():
            inner = isinstance(value, dict)
            parts = {f"{key}.{part}": value[part] for part in value} if inner else {key: value}
            lines += [f"{part} = {json.dumps(each)}" for part, each in parts.items()]
    path.write_text("\n".join(lines) + "\n")
    return path
