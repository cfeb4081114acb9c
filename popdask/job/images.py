"""The settings of aerial images and of the cells that they are seen in."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from pydantic import Field, field_validator

from popdask.job.settings import PlaceName, Settings

Above0 = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]


class Input(Settings):
    """The mosaics to estimate people in, and how they are read."""

    mosaic: PlaceName | Annotated[tuple[PlaceName, ...], Field(min_length=1)]
    """Pattern of the mosaics' files, such as ``photo_{time:%Y}.tif``; several fill each other."""
    time: str | None = None
    """Time of a mosaic whose name does not tell it, such as ``"2023"``."""
    start: str | None = None
    """First time to use; without it, the first that is found."""
    end: str | None = None
    """Last time to use (included); without it, the last that is found."""
    align: bool = False
    """Reproject mosaics in another CRS than the cells'."""
    nodata: float | None = None
    """Value of pixels without data, beside what the files declare."""

    @field_validator("time", "start", "end", mode="before")
    @classmethod
    def _time_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | date) else value


class Grid(Settings):
    """The grid of cells, and the pixels in them."""

    grid: str | None = None
    """Name of a grid: ``dk_100m``, ``eu_1km`` …; or give ``size`` and ``crs``."""
    size: Above0 = 100.0
    """Side of a cell in units of the CRS."""
    crs: str | None = None
    """CRS of the grid; without it, the mosaic's."""
    resolution: Above0 | None = None
    """Size of the pixels wanted; without it, the nearest to the mosaic's that fits the cells."""
