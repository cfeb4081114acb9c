"""What a population job gives: files, pictures, and what its models look at (Grad-CAM)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from popdask.config.jobs import PopulationJob
from popdask.errors import InputError
from popdask.imagery.cells import cell_codes, select_fold
from popdask.imagery.estimate import gradcam, telling_cells
from popdask.imagery.grid import CellGrid
from popdask.imagery.model import TrainedModel
from popdask.imagery.networks import CountCNN, PopulationViT, PresenceCNN
from popdask.io.cube import ENDS
from popdask.plot import charts, imagery, style
from popdask.plot.maps import map_figure
from popdask.report.page import Picture
from popdask.store.content import MAIN
from popdask.store.repository import RegionStore
from popdask.workflow import population_inputs
from popdask.workflow.export_formats import Content
from popdask.workflow.inputs import open_image
from popdask.workflow.population_inputs import PopulationRun, Sources
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import own_store

SCORES = ("scores", "scores_by_density", "regressor", "worst", "predictions")
SURE = ("intervals", "coverage")
SUMS = ("squares", "polygons")
MOST_PIXELS = 1500  # along a side of a photograph below a map
#: Networks that Grad-CAM explains.
EXPLAINED = (PresenceCNN, CountCNN, PopulationViT)
#: Cells that Grad-CAM explains: so many of the best, typical and worst.
CELLS_EXPLAINED = 3
#: Title of each kind of picture, and how to read it; figures of other kinds are left out.
WORDS = {
    "error": (
        "Where the estimate errs",
        "Too many people and too few, cell by cell, where the truth is known.",
    ),
    "agreement": (
        "Estimate against truth",
        "Each cell by its true and its estimated people; a perfect estimate lies on the line.",
    ),
    "relative": (
        "How wrong, by how many live there",
        "The error as a share of the people of a cell; an error of one person where nobody lives "
        "counts as a whole.",
    ),
    "overlaid": (
        "How wrong, over the images",
        "The same map, smoothed over a few cells, with the images below it.",
    ),
    "worst": (
        "The ten worst cells",
        "The labelled cells with the largest errors, with their true and their estimated people.",
    ),
    "spread": (
        "How people and errors are spread",
        "Cells by their true and their estimated people, and by the difference of the two.",
    ),
    "confusion": (
        "Inhabited or not",
        "Cells that are called empty or inhabited, by whether they are.",
    ),
    "density": (
        "Errors by density",
        "How large errors are, by how many people truly live in a cell.",
    ),
    "loss": (
        "How a model learned",
        "The error on the cells that it learned from and on those held back, after each round. The "
        "best round on the latter is the one that is kept.",
    ),
    "why": (
        "What speaks for people",
        "Bright places are those that the model looked at (Grad-CAM), for its best, typical and "
        "worst cells; below each stand its true and its estimated people.",
    ),
}


def content(job: PopulationJob, run: Any = None) -> Content:
    """What a job exports."""
    rasters = ["population", *(["presence"] if not job.single_stage else [])]
    rasters += [*ENDS] if job.intervals is not None else []
    rasters += ["census_population"] if job.census is not None else []
    # Intervals are those of the estimate, not of people that keep known totals.
    sure = ENDS if job.intervals is not None and job.census is None else ()
    return Content(
        job,
        run,
        run.work.dataset() if run else None,
        rasters=rasters,
        tables=(*SCORES, *SURE, *SUMS, "zones"),
        read=partial(_tables, run),
        illustrate=illustrate,
        words="People per cell of {}, estimated from aerial images.",
        cube=partial(_cube, run, sure),
        finest=sure,
        lists_all=False,
    )


def _tables(run: PopulationRun) -> Iterator[tuple[str, pd.DataFrame]]:
    """Read the tables that the job has."""
    names = [*SCORES] if "evaluation" in run.plan.stages else []
    if run.job.intervals is not None:
        learned = set(run.work.table("intervals")["of"])
        there = ("squares" in learned, run.job.intervals.zones is not None)
        names += [*SURE, *(name for name, known in zip(SUMS, there, strict=True) if known)]
    for name in [*names, *(["zones"] if run.job.census is not None else [])]:
        yield name, run.work.table(name)


def _cube(run: PopulationRun, sure: Sequence[str]) -> xr.Dataset:
    """The people that count, and the ends of their intervals."""
    stored = run.work.dataset()
    arrays = stored[run.job.counted].astype("float32").to_dataset(name="population")
    return arrays.assign({name: stored[name] for name in sure})


def figures(job: PopulationJob, region: RegionStore) -> Iterator[tuple[str, Figure]]:
    """Draw all pictures of the last finished run."""
    yield from maps(region.dataset())
    yield from errors(job, region)
    yield from scores(region)
    yield from worst(job, region)
    yield from losses(region)


def maps(stored: xr.Dataset) -> Iterator[tuple[str, Figure]]:
    """People of each frame."""
    for time in stored["time"].values:
        now, day = stored.sel(time=time), str(time)[:10]
        yield f"population_{day}", map_figure(now["population"])
        if "census_population" in now:
            yield f"census_population_{day}", map_figure(now["census_population"])


def errors(
    job: PopulationJob, region: RegionStore, branch: str = MAIN
) -> Iterator[tuple[str, Figure]]:
    """The error of each frame of which the people are known."""
    if job.truth is None and not _is_blind_to_counts(job):
        return  # nothing is known, and the mosaics may have gone
    stored, sources = region.dataset(branch), Sources.of(job)
    grid = sources.grid(job)
    for time in stored["time"].values:
        people, day = stored["population"].sel(time=time), str(time)[:10]
        counts = _counts(job, region, branch, sources, time.astype("datetime64[s]"), grid)
        if counts is None:
            continue
        # read once, for all three
        truth = _on_cells(counts, people.load(), grid.size, grid.origin)
        title = f"error of the estimate, {day}"
        yield f"error_{day}", imagery.error_map_figure(people, truth, title=title)
        title = f"relative {title}"
        yield (
            f"relative_{day}",
            imagery.relative_error_figure(people, truth, smoothing=0, title=title),
        )
        photograph = _photograph(job, sources.mosaics[time.astype("datetime64[s]")], people, grid)
        yield (
            f"overlaid_{day}",
            imagery.relative_error_figure(people, truth, image=photograph, title=title),
        )


def _counts(
    job: PopulationJob,
    region: RegionStore,
    branch: str,
    sources: Sources,
    time: np.datetime64,
    grid: CellGrid,
) -> pd.DataFrame | None:
    """The known people of a frame: its truth, or with folds those of the labelled cells."""
    known = sources.truth.get(time)
    if known is not None:
        return population_inputs.read_truth(job, known, grid)
    if not _is_blind_to_counts(job) or time != min(sources.mosaics):
        return None
    cells = region.group("cells", branch)
    return pd.DataFrame({name: cells[name].values for name in ("north", "east", "people")})


def _is_blind_to_counts(job: PopulationJob) -> bool:
    """Whether models estimate labelled cells of the first mosaic that they have not seen."""
    cells = job.cells
    return bool(cells.folds) and cells.counts is not None and cells.mosaic is None


def _photograph(
    job: PopulationJob, paths: tuple[str, ...], like: xr.DataArray, grid: CellGrid
) -> np.ndarray:
    """The images below a raster of cells, as colours, of some 1500 pixels a side."""
    image = open_image(job, paths, grid)
    if job.input.bands:
        image = image[: -len(job.input.bands)]
    pixel = abs(float(image["x"][1] - image["x"][0]))
    each = int(np.clip(MOST_PIXELS // max(like.shape), 1, round(grid.size / pixel)))
    places = (np.arange(each) + 0.5) / each - 0.5
    ys = (like["y"].values[:, None] - grid.size * places).ravel()
    xs = (like["x"].values[:, None] + grid.size * places).ravel()
    near = image.astype("float32").reindex(y=ys, x=xs, method="nearest", tolerance=pixel)
    return imagery.stretched(near.values[None])[0]


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
    predictions, scored = (region.find_table(name, branch) for name in ("predictions", "scores"))
    if predictions is None or scored is None:
        return
    by_density = region.table("scores_by_density", branch)
    for where, rows in scored.groupby("where", sort=False):
        of_where = rows.drop(columns="where").set_index("model")
        yield f"scores_{where}", charts.scores_figure(of_where)
        yield f"confusion_{where}", charts.confusion_figure(of_where)
        density = by_density[by_density["where"] == where].drop(columns="where")
        yield f"density_{where}", charts.density_figure(density)
        here = predictions[predictions["where"] == where]
        for model, table in here.groupby("model", sort=False):
            called = f"{where}_{str(model).replace(' ', '-')}"
            yield f"agreement_{called}", imagery.agreement_figure(table, title=str(model))
            yield f"spread_{called}", imagery.spread_figure(table, title=str(model))


def worst(
    job: PopulationJob, region: RegionStore, branch: str = MAIN
) -> Iterator[tuple[str, Figure]]:
    """The cells with the largest errors, as the models saw them."""
    try:
        table, cells = region.table("worst", branch), region.group("cells", branch)
    except KeyError:
        return
    own = table[(table["where"] == "validation") & (table["model"] == "popdask")]
    if job.cells.totals is not None and job.cells.counts is None:
        return  # they are zones
    index = pd.Index(cell_codes(cells))
    images = cells["images"].isel(cell=index.get_indexer(pd.Index(own["cell"]))).values
    pixels, context = images.shape[-1], int(cells.attrs.get("context", 0))
    pairs = zip(own["truth"], own["prediction"], strict=True)
    labels = [f"true {true:,.0f}\nestimated {said:,.1f}" for true, said in pairs]
    groups = ["the worst" if place < 5 else "the next" for place in range(len(own))]
    ring = pixels // (2 * context + 1) * context
    yield "worst", imagery.gradcam_figure(images, {}, labels, groups, ring=ring)


def losses(region: RegionStore, branch: str = MAIN) -> Iterator[tuple[str, Figure]]:
    """The losses of each model that was trained."""
    for name, content in sorted(region.files(branch).items()):
        if not name.endswith(".safetensors"):
            continue
        model = TrainedModel.from_bytes(content, name)
        history = pd.DataFrame(model.history)
        if len(history):
            title = name.removesuffix(".safetensors")
            yield f"loss_{title}", charts.history_figure(history, title=title)


def explain(job: PopulationJob, reporter: Reporter | None = None, *, cells: int = 4) -> Path:
    """Draw what in the images of some cells speaks for people."""
    region = own_store(job)
    with (reporter or Reporter()).stage("explain", "to do"):
        figure = why_figure(job, region, cells=cells)
        if figure is None:
            raise InputError(
                f"nobody lives in the validation cells of {region.path}, or is estimated there, or "
                "no model is a network that learned from pixels: give [cells] counts with "
                "inhabited cells and such a network, and run the job."
            )
        return style.save_figure(figure, job.export_folder / "figures" / f"{job.name}_why.png")


def why_figure(
    job: PopulationJob, region: RegionStore, branch: str = MAIN, *, cells: int = 4
) -> Figure | None:
    """Draw Grad-CAM of the best, typical and worst validation cells, by the stored predictions."""
    if job.cells.totals is not None and job.cells.counts is None:
        return None  # no people of single cells are known
    models, held_out = _models(region, branch), _validation_cells(job, region, branch)
    true, said = held_out["people"].values, _estimates(held_out, region, branch)
    chosen = telling_cells(said, true, cells)
    order = np.concatenate(list(chosen.values()))
    if not order.size or not models:
        return None
    shown = held_out.isel(cell=order)["images"].values
    maps = {
        name: np.stack([gradcam(model, image) for image in shown]) for name, model in models.items()
    }
    labels = [f"true {true[i]:,.0f}, estimated {said[i]:,.1f}" for i in order]
    groups = [name for name, places in chosen.items() for _ in places]
    pixels, context = shown.shape[-1], int(held_out.attrs["context"])
    ring = pixels // (2 * context + 1) * context
    return imagery.gradcam_figure(shown, maps, labels, groups, ring=ring)


def _models(region: RegionStore, branch: str) -> dict[str, TrainedModel]:
    """The models of a run, by stage; of a cross-validation those of the first fold."""
    files = region.files(branch)
    found = {}
    for stage in ("presence", "count"):
        names = [name for name in sorted(files) if name.startswith(stage) and ".safet" in name]
        if names:
            found[stage] = TrainedModel.from_bytes(files[names[0]], names[0])
    return {stage: model for stage, model in found.items() if isinstance(model.module, EXPLAINED)}


def _validation_cells(job: PopulationJob, region: RegionStore, branch: str) -> xr.Dataset:
    """The cells that the models have not seen; the images are lazy."""
    try:
        cells = region.group("cells", branch)
    except KeyError:
        raise InputError(
            f"{region.path} has no labelled cells to explain: give [cells] counts, and run the job."
        ) from None
    if job.cells.folds:
        cells = select_fold(cells.assign_coords(fold=cells["fold"].compute()), 0)
    return cells.isel(cell=np.flatnonzero(cells["split"].values == 1))


def _estimates(cells: xr.Dataset, region: RegionStore, branch: str) -> np.ndarray:
    """The people that the run has estimated in some of its validation cells."""
    table = region.table("predictions", branch)
    own = table[(table["where"] == "validation") & (table["model"] == "popdask")]
    return own.set_index("cell")["prediction"].loc[cell_codes(cells)].to_numpy()


def illustrate(job: PopulationJob, region: RegionStore, branch: str) -> Iterator[Picture]:
    """Draw errors, scores, how the models learned, and what they look at."""
    drawn = chain(
        errors(job, region, branch),
        scores(region, branch),
        worst(job, region, branch),
        losses(region, branch),
    )
    for name, figure in drawn:
        kind, _, of = name.partition("_")
        if kind in WORDS:
            title, text = WORDS[kind]
            shown = f"{title}: {of.replace('_', ', ')}" if of else title
            yield Picture(shown, text, figure)
    labelled = "cells" in region.records(branch)
    why = why_figure(job, region, branch, cells=CELLS_EXPLAINED) if labelled else None
    if why is not None:
        yield Picture(*WORDS["why"], why, wide=True)
