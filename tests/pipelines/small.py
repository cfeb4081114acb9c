"""A world of two towns, and a job on it that is done in a second."""

import json

import numpy as np
import pandas as pd
import xarray as xr

from popdask.config import CommunitiesJob
from popdask.synthetic import City, World

TABLES = ("communities", "tracks", "links", "balance")


def small_world():
    """Two towns for four years: one moves east, the other stays."""
    path = tuple((20.0, 20.0 + 2 * year) for year in range(4))
    mover = City(0, path, (9000,) * 4, ((8.0, 8.0),) * 4)
    stayer = City(1, ((45.0, 25.0),) * 4, (5000,) * 4, ((7.0, 7.0),) * 4)
    return World((mover, stayer), shape=(66, 70), frames=4)


def settings(folder, store, **tables):
    """The settings of a job on frames in a folder; tables of settings are changed by name."""
    found = {
        "name": "small",
        "input": {"frames": f"{folder}/world_{{time:%Y}}.tif"},
        "encoder": {"epochs": 4},
        "classes": {"k": 3, "sample": 2000},
        # 14,000 people on 4,620 km²: by default their towns are land, too
        "communities": {"eps": 3, "min_samples": 8, "min_density": 10},
        "settlements": {"find": False},
        "output": {"store": str(store)},
    }
    for name, table in tables.items():
        found[name] = found.get(name, {}) | table
    return found


def job(folder, store, **tables):
    """The job on frames in a folder."""
    return CommunitiesJob.model_validate(settings(folder, store, **tables))


def write_job(path, folder, store, **tables):
    """Write the job's file."""
    lines = []
    for name, table in settings(folder, store, **tables).items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(table[key])}" for key in table)]
        else:
            lines.append(f"{name} = {json.dumps(table)}")
    path.write_text("\n".join(lines) + "\n")
    return path


def assert_same(one, other):
    """Two stores tell the same, number for number."""
    found = (store.dataset().compute().assign_attrs(title="") for store in (one, other))  # a name
    xr.testing.assert_identical(*found)
    for name in TABLES:
        pd.testing.assert_frame_equal(one.table(name), other.table(name))


def assert_equal_results(one, other):
    """Two stores tell the same: whole numbers exactly, others to 1e-5 of their range."""
    first, second = one.dataset().load(), other.dataset().load()
    for name in ("population", "classes", "community"):
        np.testing.assert_array_equal(first[name], second[name])
    for name in ("u", "v"):
        spread = float(first[name].max() - first[name].min())
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=1e-5 * spread)
    for name in TABLES:
        pd.testing.assert_frame_equal(one.table(name), other.table(name), rtol=1e-5)
