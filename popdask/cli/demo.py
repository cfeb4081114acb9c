"""The demo: a world whose story is known, the whole job on it, and what was found against what is.

Everything lies in one folder: the frames that are drawn, the store, the exports and the picture.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pandas as pd
import xarray as xr

from popdask.config.jobs import CommunitiesJob
from popdask.config.load import load_job
from popdask.metrics.communities import city_events, event_scores, match_cities
from popdask.plot import maps, style
from popdask.synthetic.cities import World, moving_cities
from popdask.workflow.communities import CommunitiesResult

SEED = 3


def draw(folder: Path) -> World:
    """Draw the demo's world and write its frames."""
    world = moving_cities(seed=SEED)
    world.write(folder / "frames")
    return world


def job(folder: Path) -> CommunitiesJob:
    """Read the demo's job file, ``jobs/demo.toml``, with its paths in a folder."""
    folder = folder.resolve()
    overrides = {
        "input.frames": str(folder / "frames" / "world_{time:%Y}.tif"),
        "output.store": str(folder / "demo.icechunk"),
    }
    settings = load_job(_job_file(), overrides)
    assert isinstance(settings, CommunitiesJob)
    return settings


def compare(community: xr.DataArray, tracks: pd.DataFrame, world: World) -> pd.DataFrame:
    """Count the true events of the world's cities that a run has found."""
    # A city's events are those of its core, the community with most people of its densest cells.
    match = match_cities(community, world.labels, world.population["population"])
    return event_scores(city_events(tracks, match), world.truth, tolerance=1, times=[*world.times])


def picture(outcome: CommunitiesResult, folder: Path) -> Path:
    """Draw population, classes, communities and tracks of each frame."""
    found = outcome.store.dataset()
    figure = maps.world_figure(
        found["population"],
        found["classes"],
        found["community"],
        outcome.communities,
        outcome.tracks,
        frames=found.sizes["time"],
    )
    return style.save_figure(figure, folder / "demo.png")


def _job_file() -> Path:
    """The job file of the installed package, or that of a checkout."""
    packaged = Path(str(files("popdask"))) / "jobs" / "demo.toml"
    return packaged if packaged.exists() else packaged.parents[2] / "jobs" / "demo.toml"
