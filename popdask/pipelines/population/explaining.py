"""Why a model says what it says: Grad-CAM of the best, typical and worst validation cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from popdask import figures
from popdask.errors import InputError
from popdask.imagery.cells import select_fold
from popdask.imagery.gradcam import gradcam, telling_cells
from popdask.imagery.models import TrainedModel
from popdask.job import PopulationJob
from popdask.pipelines.population.scoring import Joint
from popdask.progress import Reporter
from popdask.store import RegionStore


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
        If no run is finished yet, or it has no labelled cells.
    """
    region = RegionStore(job.output.store)
    models, held_out = _models(region), _validation_cells(job, region)
    with (reporter or Reporter()).stage("explain", "to do"):
        images = held_out["images"].values
        joint = Joint(models.get("presence"), models["count"], job.estimate.threshold, "cpu")
        _, people = joint.predict(images)
        chosen = telling_cells(people, held_out["people"].values, cells)
        order = np.concatenate(list(chosen.values()))
        groups = [name for name, places in chosen.items() for _ in places]
        labels = [
            f"{true:,.0f} people, {said:,.1f} estimated"
            for true, said in zip(held_out["people"].values[order], people[order], strict=True)
        ]
        maps = {
            name: np.stack([gradcam(model, images[place]) for place in order])
            for name, model in models.items()
        }
        pixels, context = images.shape[-1], int(held_out.attrs["context"])
        ring = pixels // (2 * context + 1) * context
        figure = figures.gradcam_figure(images[order], maps, labels, groups, ring=ring)
        return figures.save_figure(figure, job.export_folder / "figures" / f"{job.name}_why.png")


def _models(region: RegionStore) -> dict[str, TrainedModel]:
    """The models of a run, by stage; of a cross-validation those of the first fold."""
    files = region.files()
    found = {}
    for stage in ("presence", "count"):
        names = [name for name in sorted(files) if name.startswith(stage) and ".safet" in name]
        if names:
            found[stage] = TrainedModel.from_bytes(files[names[0]], names[0])
    return found


def _validation_cells(job: PopulationJob, region: RegionStore) -> xr.Dataset:
    try:
        cells = region.group("cells")
    except KeyError:
        raise InputError(
            f"{region.path} has no labelled cells to explain: give [cells] counts, and run the job."
        ) from None
    if job.cells.folds:
        cells = select_fold(cells.assign_coords(fold=cells["fold"].compute()), 0)
    return cells.isel(cell=np.flatnonzero(cells["split"].values == 1)).load()
