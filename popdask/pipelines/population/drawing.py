"""The files of a drawn country, made before the run that reads them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from popdask import export
from popdask.imagery.grid import CellGrid
from popdask.job.population import Drawn
from popdask.progress import Reporter
from popdask.synthetic import OrthophotoWorld, drawn_orthophoto

TRAINING_PLACE = (600_000.0, 6_200_000.0)
MOSAIC_PLACE = (650_000.0, 6_250_000.0)  # far enough to share nothing but the style
NOTE = "drawn.json"


def draw(settings: Drawn, reporter: Reporter | None = None) -> Path:
    """Draw a training mosaic and mosaics of some years of another place, with their people.

    Parameters
    ----------
    settings
        What to draw. Nothing is done where it is drawn already.
    reporter
        Is told that it is drawn.

    Returns
    -------
    Path
        The folder with ``training.tif``, ``training_people.parquet`` (cell, people), and for each
        year ``mosaic_2015.tif`` and ``people_2015.tif`` (people per cell of 100 m).
    """
    folder, note = Path(settings.folder), Path(settings.folder, NOTE)
    if is_drawn(settings):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    with (reporter or Reporter()).stage("drawing", "to do"):
        training = _world(settings, TRAINING_PLACE, settings.training_km, settings.years[0])
        training.write(folder / "training.tif")
        _people(training).to_parquet(folder / "training_people.parquet", index=False)
        for year in settings.years:
            world = _world(settings, MOSAIC_PLACE, settings.mosaic_km, year)
            world.write(folder / f"mosaic_{year}.tif")
            export.write_cogs(world.people(100.0).astype("float32"), folder, f"people_{year}")
    note.write_text(_told(settings))
    return folder


def is_drawn(settings: Drawn) -> bool:
    """Tell whether the country is drawn, as the settings say."""
    note = Path(settings.folder, NOTE)
    return note.exists() and note.read_text() == _told(settings)


def _told(settings: Drawn) -> str:
    return settings.model_dump_json(exclude={"folder"})


def _world(
    settings: Drawn, place: tuple[float, float], extent: tuple[float, float], year: int
) -> OrthophotoWorld:
    return drawn_orthophoto(
        extent,
        seed=settings.seed,
        origin=place,
        year=year - settings.years[0],
        bands=settings.bands,
        resolution=settings.resolution,
    )


def _people(world: OrthophotoWorld) -> pd.DataFrame:
    """The people of every cell, by its code."""
    grid, people = CellGrid.preset("dk_100m"), world.people(100.0)
    north, east = ((people[axis].values // grid.size).astype(int) for axis in ("y", "x"))
    cells = [grid.code(n, e) for n in north for e in east]
    return pd.DataFrame({"cell": cells, "people": people.values.ravel().astype(float)})
