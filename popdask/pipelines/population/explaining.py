"""Why a model says what it says: Grad-CAM of the best, typical and worst validation cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from popdask import figures
from popdask.errors import InputError
from popdask.imagery.cells import cells_grid, select_fold
from popdask.imagery.gradcam import gradcam, telling_cells
from popdask.imagery.models import TrainedModel
from popdask.job import PopulationJob
from popdask.pipelines.conductor import own_store
from popdask.progress import Reporter
from popdask.store import MAIN, RegionStore


def explain(job: PopulationJob, reporter: Reporter | None = None, *, cells: int = 4) -> Path:
    """Draw what in the images of some cells speaks for people.

    Parameters
    ----------
    job
        The settings of a finished run.
    reporter
        Is told of it; without it, nothing is said.
    cells
        How many of each: best, typical and worst estimates among the validation cells.

    Returns
    -------
    Path
        ``figures/<job>_why.png`` in the job's export folder.

    Raises
    ------
    InputError
        If no run is finished yet, or it has no labelled cells, or nobody lives in them.
    """
    region = own_store(job)
    with (reporter or Reporter()).stage("explain", "to do"):
        figure = why_figure(job, region, cells=cells)
        if figure is None:
            raise InputError(
                f"nobody lives in the validation cells of {region.path}, or is estimated there: "
                "give [cells] counts with inhabited cells, and run the job."
            )
        return figures.save_figure(figure, job.export_folder / "figures" / f"{job.name}_why.png")


def why_figure(
    job: PopulationJob, region: RegionStore, branch: str = MAIN, *, cells: int = 4
) -> Figure | None:
    """Draw Grad-CAM of the best, typical and worst validation cells, by the stored predictions.

    Parameters
    ----------
    job
        The settings of the run.
    region, branch
        Its results, evaluated.
    cells
        How many of each.

    Returns
    -------
    matplotlib.figure.Figure or None
        None where nobody lives in those cells, and nobody is estimated.

    Raises
    ------
    InputError
        If there are no labelled cells.
    """
    models, held_out = _models(region, branch), _validation_cells(job, region, branch)
    true, said = held_out["people"].values, _estimates(held_out, region, branch)
    chosen = telling_cells(said, true, cells)
    order = np.concatenate(list(chosen.values()))
    if not order.size:
        return None
    shown = held_out.isel(cell=order)["images"].values
    maps = {
        name: np.stack([gradcam(model, image) for image in shown]) for name, model in models.items()
    }
    labels = [f"true {true[i]:,.0f}, estimated {said[i]:,.1f}" for i in order]
    groups = [name for name, places in chosen.items() for _ in places]
    pixels, context = shown.shape[-1], int(held_out.attrs["context"])
    ring = pixels // (2 * context + 1) * context
    return figures.gradcam_figure(shown, maps, labels, groups, ring=ring)


def _models(region: RegionStore, branch: str) -> dict[str, TrainedModel]:
    """The models of a run, by stage; of a cross-validation those of the first fold."""
    files = region.files(branch)
    found = {}
    for stage in ("presence", "count"):
        names = [name for name in sorted(files) if name.startswith(stage) and ".safet" in name]
        if names:
            found[stage] = TrainedModel.from_bytes(files[names[0]], names[0])
    return found


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
    table, grid = region.table("predictions", branch), cells_grid(cells)
    own = table[(table["where"] == "validation") & (table["model"] == "popdask")]
    places = zip(cells["north"].values, cells["east"].values, strict=True)
    codes = [grid.code(*place) for place in places]
    return own.set_index("cell")["prediction"].loc[codes].to_numpy()
