"""The settings of the population job: aerial images in, people per cell out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from popdask.job import settings
from popdask.job.communities import (
    Classes,
    Communities,
    CommunitiesJob,
    Domain,
    Encoder,
    Flow,
    Format,
    Links,
)
from popdask.job.images import Above0, Device, Grid, Input, Seed
from popdask.job.scenes import Features, Groups, ScenesJob
from popdask.job.scenes import Format as SceneFormat
from popdask.job.settings import PlaceName, Positive, Settings

Share = Annotated[float, Field(ge=0, le=1)]


class Drawn(Settings):
    """A drawn country, made before the run, where there are no photographs."""

    folder: PlaceName
    """Where its files go: ``training.tif``, ``mosaic_2015.tif``, and the people in them."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed is another country."""
    years: Annotated[tuple[int, ...], Field(min_length=1)] = (2015, 2025)
    """Years of the mosaics; the first is that of the training mosaic too."""
    training_km: tuple[float, float] = (8.0, 8.0)
    """Extent of the training mosaic northward and eastward."""
    mosaic_km: tuple[float, float] = (3.0, 3.0)
    """Extent of the mosaics, which show another place."""
    resolution: Above0 = 1.0
    """Side of a pixel in metres, a multiple of 0.5."""
    bands: Literal[1, 3, 4] = 1
    """Grey, colour, or colour and near infrared."""


class Cells(Grid):
    """The grid of cells, and those of known people that the models learn from."""

    context: Annotated[int, Field(ge=0)] = 0
    """Rings of neighbouring cells that a model sees around each cell."""
    mosaic: PlaceName | tuple[PlaceName, ...] | None = None
    """Files to cut labelled cells from; without it, the first mosaic of the input."""
    counts: PlaceName | None = None
    """People by cell: a raster, a table (cell, people) in Parquet or CSV, or points."""
    column: str = "people"
    """Column of the people in a table, or the weight of points."""
    share: bool = False
    """Share the people of a raster on another grid among the cells, by area."""
    absent: Literal["unknown", "nobody"] = "unknown"
    """What cells are that the counts do not list."""
    folder: PlaceName | None = None
    """A folder with a file for each cell, instead of mosaic and counts."""
    skip_unnamed: bool = False
    """Skip files of the folder whose names do not parse."""
    join: Positive = 1
    """Join so many by so many cells into one."""
    split: Literal["random", "blocks"] = "random"
    """Draw validation cells one by one, or in squares that keep a distance."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the cells that scores are computed on."""
    block: Positive = 10
    """Cells per side of a square."""
    folds: Annotated[int, Field(ge=0)] = 0
    """Cross-validation: so many models, each blind to a part of the cells; 0 for a single split."""
    seed: Seed = 0
    """Seed of the split."""


class Training(Settings):
    """How a model is trained; what is left out is as published for the kind of model."""

    weights: PlaceName | None = None
    """A model trained before, used as it is."""
    preset: Literal["100m", "300m"] = "100m"
    """Cells for which the published settings were found."""
    network: dict[str, Any] = Field(default_factory=dict)
    """The network and its arguments, such as ``{widths = [16, 32, 64]}``."""
    epochs: Positive | None = None
    """At most so many."""
    batch_size: Positive | None = None
    """Cells per step."""
    rate: Above0 | None = None
    """Learning rate at the start."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Weight decay."""
    optimizer: Literal["adam", "adamw"] | None = None
    """The optimiser."""
    flips: Literal["none", "horizontal", "both"] | None = None
    """Mirror images of cells to learn from, too."""
    jitter: Share | None = None
    """Change brightness and contrast by up to this much."""
    normalise: Literal["half", "bands"] | None = None
    """[0, white] to [−1, 1], or each band by its mean and standard deviation."""
    balance: Share | None = None
    """0 draws cells as they come, 1 every number of people equally often."""
    patience: Positive | None = None
    """Epochs without a better loss after which the rate is halved."""
    stop_after: Positive | None = None
    """Epochs without a better loss after which training ends."""
    threads: Positive | None = None
    """Threads of the CPU; the result depends on them. All cores by default."""
    seed: Seed = 0
    """Seed of weights, order and augmentation."""
    device: Device = "auto"
    """Where to train: ``auto`` is a GPU where there is one."""


class Count(Training):
    """The model that counts people."""

    kind: Literal["count", "transformer", "weighted"] = "count"
    """A regressor, the transformer, or a single-stage regressor that needs no presence."""
    learns_from: Literal["inhabited", "predicted"] = "inhabited"
    """Cells that are truly inhabited, or those that the presence model calls so."""


class Estimate(Settings):
    """How people are estimated."""

    threshold: Share = 0.5
    """People are counted where the probability of presence is higher."""
    batch_size: Positive = 64
    """Cells that pass through a model at once, at most."""
    device: Device = "auto"
    """Where to estimate: ``auto`` is a GPU where the worker has one."""


class Census(Settings):
    """Known totals of zones that the estimates are scaled to."""

    zones: PlaceName
    """Polygons, or a raster of zone numbers."""
    totals: str = "people"
    """The polygons' column of totals."""
    table: PlaceName | None = None
    """For a raster of zones, its table (zone, total) in Parquet or CSV."""
    name: str | None = None
    """The column with the zones' names."""
    inhabited_from: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Probability from which cells take people where nobody was estimated."""
    unzoned: Literal["keep", "drop"] = "keep"
    """Cells in no zone keep their estimate, or have no data."""
    partial: Literal["error", "leave", "fit"] = "error"
    """Zones that reach beyond the mosaic are refused, left out, or fitted to their whole total."""
    whole: bool = False
    """In whole people, by largest remainder."""


class Truth(Settings):
    """Known people of the mosaics' cells, which the estimates are compared with."""

    counts: PlaceName
    """Pattern of the counts' files, such as ``people_{time:%Y}.tif``."""
    column: str = "people"
    """Column of the people in a table, or the weight of points."""
    share: bool = False
    """Share the people of a raster on another grid among the cells, by area."""
    absent: Literal["unknown", "nobody"] = "unknown"
    """What cells are that the counts do not list."""


class Follow(Settings):
    """The communities of the estimated frames, found and followed by a second job."""

    store: PlaceName
    """Its repository, a folder."""
    export: tuple[Format, ...] = ()
    """Its exports."""
    flow: Flow = Flow()
    encoder: Encoder = Encoder()
    classes: Classes = Classes()
    domain: Domain = Domain()
    communities: Communities = Communities()
    links: Links = Links()


class Scenes(Settings):
    """Groups of cells of the first mosaic that look alike, found by a second job."""

    store: PlaceName
    """Its repository, a folder."""
    export: tuple[SceneFormat, ...] = ()
    """Its exports."""
    features: Features = Features()
    groups: Groups = Groups()


class Output(settings.Output):
    """Where the results go."""

    export: tuple[Literal["cog", "parquet", "zarr", "stac", "report"], ...] = ("cog",)
    """Further formats, written beside the store when the run is finished."""


class PopulationJob(settings.Job):
    """A region's aerial images, and how people are estimated in them."""

    pipeline: Literal["population"] = "population"
    """The product."""
    drawn: Drawn | None = None
    """A country to draw before the run, with its images and people."""
    input: Input
    cells: Cells = Cells()
    presence: Training = Training()
    count: Count = Count()
    estimate: Estimate = Estimate()
    census: Census | None = None
    truth: Truth | None = None
    follow: Follow | None = None
    scenes: Scenes | None = None
    output: Output

    @property
    def single_stage(self) -> bool:
        """Whether people are counted everywhere, without a model of presence."""
        return self.count.kind == "weighted"

    @property
    def counted(self) -> str:
        """The array of the people that count: fitted to the census where there is one."""
        return "population" if self.census is None else "census_population"

    def followed(self, form: str = "%Y") -> CommunitiesJob | None:
        """The job that follows the communities of the estimates; None without ``[follow]``.

        Parameters
        ----------
        form
            How the times stand in the names of the exported rasters.
        """
        if self.follow is None:
            return None
        pattern = f"{self.export_place}/{self.name}_{self.counted}_{{time:{form}}}.tif"
        tables = self.follow.model_dump(exclude={"store", "export"})
        output = {"store": self.follow.store, "export": self.follow.export}
        return CommunitiesJob.model_validate(
            {
                "name": f"{self.name}-communities",
                "input": {"frames": pattern},
                "output": output,
                **tables,
            }
        )

    @property
    def grouped(self) -> ScenesJob | None:
        """The job that groups the cells of the first mosaic; None without ``[scenes]``."""
        if self.scenes is None:
            return None
        tables = self.scenes.model_dump(exclude={"store", "export"})
        return ScenesJob.model_validate(
            {
                "name": f"{self.name}-scenes",
                "input": self.input.model_dump(),
                "cells": self.cells.model_dump(include=set(Grid.model_fields)),
                "output": {"store": self.scenes.store, "export": self.scenes.export},
                **tables,
            }
        )

    @model_validator(mode="after")
    def _makes_sense(self) -> PopulationJob:
        if self.follow is not None and "cog" not in self.output.export:
            raise ValueError(
                f"[output] export is {list(self.output.export)}, and [follow] reads the estimates "
                'as COGs: add "cog"'
            )
        if self.cells.folder is None and self.cells.counts is None and not self._trained:
            raise ValueError(
                "[cells] has no counts to learn from: give counts, a folder of cells, or the "
                "weights of trained models in [presence] and [count]"
            )
        if self.cells.folder is not None and self.cells.context:
            raise ValueError(
                f"[cells] context is {self.cells.context}, and files of cells show no neighbours: "
                "cut cells from a mosaic with counts, or leave context out"
            )
        stores = [self.output.store]
        for name, other in (("follow", self.followed()), ("scenes", self.grouped)):
            if other is not None and other.output.store in stores:
                raise ValueError(
                    f"[{name}] store is {other.output.store}, which is another job's: choose one "
                    "of its own"
                )
            stores += [] if other is None else [other.output.store]
        return self

    @property
    def _trained(self) -> bool:
        return self.count.weights is not None and (
            self.single_stage or self.presence.weights is not None
        )
