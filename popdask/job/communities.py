"""The settings of the communities job: population rasters in, communities through time out."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from popdask.job import settings
from popdask.job.settings import PlaceName, Positive, Settings

_DISTANCE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(km|m)\s*$")


class Input(Settings):
    """Where the frames come from, and how they are read."""

    frames: PlaceName
    """Pattern of the frames' files, such as ``pop_{time:%Y}.tif``."""
    start: str | None = None
    """First time to use, such as ``"2002"``; without it, the first that is found."""
    end: str | None = None
    """Last time to use (included); without it, the last that is found."""
    nodata: float | None = None
    """Value that means no data, in addition to what the files declare."""
    align: bool = False
    """Reproject frames that lie on another grid than the first, keeping their sums."""
    chunks: Literal["auto"] | Positive = "auto"
    """Edge of the square chunks, in cells."""

    @field_validator("start", "end", mode="before")
    @classmethod
    def _time_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | date) else value  # TOML has dates, too


class Flow(Settings):
    """Horn-Schunck flow between frames."""

    iterations: Positive = 1
    """Relaxation steps."""
    alpha: Annotated[float, Field(gt=0)] = 10.0
    """Smoothness of the flow, in people per cell."""
    centering: tuple[Literal[-1, 0, 1], Literal[-1, 0, 1], Literal[-1, 0, 1]] = (0, 0, 0)
    """Differences along x, y and time: 0 centred, +1 forward, -1 backward."""
    warm_start: bool = True
    """Start each frame from the flow of the frame before."""


class Encoder(Settings):
    """The autoencoder of 7 x 7 windows."""

    scope: Literal["shared", "frame"] = "shared"
    """One model for all frames (classes can be compared), or one for each frame."""
    latent: Positive = 16
    """Numbers that describe a window."""
    epochs: Positive = 200
    """Rounds of training, of 1000 windows each."""
    edge: Literal["neutral", "zero"] = "neutral"
    """What lies beyond the raster: nobody at rest, or 0 after scaling (as the original)."""
    seed: int = 0
    """Seed of the weights and of the windows."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train and encode; ``auto`` is a GPU where there is one."""


class Classes(Settings):
    """KMeans on the encoded windows."""

    k: Annotated[int, Field(ge=2)] | Literal["auto"] = 10
    """Number of classes; ``auto`` is the knee of the SSE curve over 2...20."""
    sample: Annotated[int, Field(ge=100)] = 100_000
    """Cells that the classes are fitted on."""
    seed: int = 0
    """Seed of the sample and of the start."""


class Domain(Settings):
    """The cells that are trained on, classified and grouped."""

    cells: Literal["settled", "data", "inhabited"] = "settled"
    """Cells that see people within 3 cells, all with data, or only those with people."""


class Communities(Settings):
    """DBSCAN of each class's cells."""

    eps: Annotated[float, Field(gt=0)] | str = 10.0
    """Reach of a cell, in cells, or as a distance such as ``"2.5 km"``."""
    min_samples: Positive = 50
    """Cells within reach, itself included, that make a core."""
    min_people: Annotated[float, Field(ge=0)] = 0.0
    """Communities with fewer people are dissolved."""

    @field_validator("eps")
    @classmethod
    def _distance(cls, value: float | str) -> float | str:
        match = _DISTANCE.match(value) if isinstance(value, str) else None
        if isinstance(value, str) and not (match and float(match[1]) > 0):
            raise ValueError('expected a number of cells or a distance such as "2.5 km"')
        return value


class Links(Settings):
    """Links between the communities of consecutive frames."""

    rule: Literal["cosine", "overlap", "cosine+overlap"] = "cosine+overlap"
    """By the cells that move together, by the people in common, or by both."""


#: Further formats: rasters of each frame and of all frames, tables, layers, a catalogue, a page.
Format = Literal["cog", "geotiff", "geoparquet", "gpkg", "stac", "report"]


class Output(settings.Output):
    """Where the results go."""

    export: tuple[Format, ...] = ()
    """Further formats, written beside the store when the run is finished."""


class CommunitiesJob(settings.Job):
    """A region's frames, and how communities are found and followed in them."""

    pipeline: Literal["communities"] = "communities"
    """The product."""
    input: Input
    flow: Flow = Flow()
    encoder: Encoder = Encoder()
    classes: Classes = Classes()
    domain: Domain = Domain()
    communities: Communities = Communities()
    links: Links = Links()
    output: Output
