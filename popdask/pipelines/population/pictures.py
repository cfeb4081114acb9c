"""The pictures of a finished population run: estimates, their errors, how the models learned."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from popdask import figures
from popdask.imagery.models import TrainedModel
from popdask.job import PopulationJob
from popdask.pipelines.conductor import own_store
from popdask.pipelines.images import cell_grid
from popdask.pipelines.population import reading
from popdask.pipelines.population.sources import Sources
from popdask.progress import Reporter
from popdask.store import MAIN, RegionStore


def draw(job: PopulationJob, reporter: Reporter | None = None) -> list[Path]:
    """Draw all pictures of a job's last finished run.

    Parameters
    ----------
    job
        The settings of the run.
    reporter
        Is told of the parts; without it, nothing is said.

    Returns
    -------
    list of Path
        ``figures/<job>_<picture>.png`` in the job's export folder: people of each frame, the error
        where the truth is known, the agreement of estimates and truth, confusion, scores, error by
        density, and the loss of each model.

    Raises
    ------
    InputError
        If no run is finished yet.
    """
    region, folder = own_store(job), job.export_folder / "figures"
    stored = region.dataset()
    written = []
    with (reporter or Reporter()).stage("figures", "to do"):
        drawn = chain(maps(stored), errors(job, stored), scores(region), losses(region))
        for name, figure in drawn:
            path = folder / f"{job.name}_{name}.png"
            written.append(figures.save_figure(figure, path))
    return written


def maps(stored: xr.Dataset) -> Iterator[tuple[str, Figure]]:
    """People of each frame."""
    for time in stored["time"].values:
        now, day = stored.sel(time=time), str(time)[:10]
        yield f"population_{day}", figures.map_figure(now["population"])
        if "census_population" in now:
            yield f"census_population_{day}", figures.map_figure(now["census_population"])


def errors(job: PopulationJob, stored: xr.Dataset) -> Iterator[tuple[str, Figure]]:
    """The error of each frame of which the people are known."""
    if job.truth is None:
        return
    sources = Sources.of(job)
    grid = cell_grid(job.cells, next(iter(sources.mosaics.values()))[0], job.cells.join)
    for time in stored["time"].values:
        now, day = stored.sel(time=time), str(time)[:10]
        known = sources.truth.get(time.astype("datetime64[s]"))
        if known is not None:
            counts = reading.read_truth(job, known, grid)
            truth = _on_cells(counts, now["population"], grid.size, grid.origin)
            title = f"error of the estimate, {day}"
            yield f"error_{day}", figures.error_map_figure(now["population"], truth, title=title)


def _on_cells(
    counts: pd.DataFrame, like: xr.DataArray, size: float, origin: tuple[float, float]
) -> xr.DataArray:
    """Counts of cells as a raster on the grid of another."""
    truth = xr.full_like(like.compute(), np.nan)
    rows = pd.Index(np.floor((like["y"].values - origin[1]) / size).astype(int))
    columns = pd.Index(np.floor((like["x"].values - origin[0]) / size).astype(int))
    row, column = rows.get_indexer(counts["north"]), columns.get_indexer(counts["east"])
    inside = (row >= 0) & (column >= 0)
    truth.values[row[inside], column[inside]] = counts["people"].to_numpy()[inside]
    return truth


def scores(region: RegionStore, branch: str = MAIN) -> Iterator[tuple[str, Figure]]:
    """How well estimates and truth agree, for each set of cells where the truth is known."""
    try:
        predictions, scored = (region.table(name, branch) for name in ("predictions", "scores"))
    except KeyError:
        return
    by_density = region.table("scores_by_density", branch)
    for where, told in scored.groupby("where", sort=False):
        of_where = told.drop(columns="where").set_index("model")
        yield f"scores_{where}", figures.scores_figure(of_where)
        yield f"confusion_{where}", figures.confusion_figure(of_where)
        density = by_density[by_density["where"] == where].drop(columns="where")
        yield f"density_{where}", figures.density_figure(density)
        here = predictions[predictions["where"] == where]
        for model, table in here.groupby("model", sort=False):
            yield (
                f"agreement_{where}_{str(model).replace(' ', '-')}",
                figures.agreement_figure(table, title=str(model)),
            )


def losses(region: RegionStore, branch: str = MAIN) -> Iterator[tuple[str, Figure]]:
    """The losses of each model that was trained."""
    for name, content in sorted(region.files(branch).items()):
        if not name.endswith(".safetensors"):
            continue
        model = TrainedModel.from_bytes(content, name)
        history = pd.DataFrame(model.history)
        if len(history):
            title = name.removesuffix(".safetensors")
            yield f"loss_{title}", figures.history_figure(history, title=title)
