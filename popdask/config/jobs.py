"""The settings of every kind of job, a class for each table of the file.

Communities and settlements begin with population rasters, scenes and population with aerial images.
A docstring below a setting is its meaning, as ``popdask plan`` and the reference show it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from popdask.config import settings
from popdask.config.settings import (
    Above0,
    Cells,
    Device,
    Drawn,
    Features,
    Formats,
    Grid,
    Groups,
    Images,
    Input,
    Part,
    PlaceName,
    Positive,
    Seed,
    Settings,
    TimeText,
)

_DISTANCE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(km|m)\s*$")


MOST_SCALES = 6  # as popdask.tracking._horn_schunck has them
FEW_CLASSES = 7  # of which k-means finds the same by nearly every fit of the encoder

#: Further formats: rasters of each frame and of all frames, tables, layers, a catalogue, a page.
CommunitiesFormat = Literal["cog", "geotiff", "zarr", "geoparquet", "gpkg", "stac", "report"]
#: Further formats: rasters of the groupings, a table of the cells, a page.
ScenesFormat = Literal["cog", "geoparquet", "report"]
#: Functions between the layers of the autoencoder.
Activation = Literal["relu", "leaky_relu", "elu", "tanh", "sigmoid", "linear"]

# ``register`` is a method of the classes of settings, not of settings: nothing is hidden.
warnings.filterwarnings("ignore", 'Field name "register" in "FramesInput"', UserWarning)


def _several(value: Any) -> Any:
    """A single time is a list of one."""
    told = isinstance(value, str | int | date) and not isinstance(value, bool)
    return [value] if told else value


class FramesInput(Settings):
    """Where the frames come from, and how they are read."""

    frames: PlaceName
    """Pattern of the frames' files, such as ``pop_{time:%Y}.tif``."""
    times: Annotated[tuple[TimeText, ...], BeforeValidator(_several)] | None = None
    """Times of a raster whose name has none, such as ``["2020"]``; several are those of its first
    bands."""
    start: TimeText | None = None
    """First time to use, such as ``"2002"``; without it, the first that is found."""
    end: TimeText | None = None
    """Last time to use (included); without it, the last that is found."""
    nodata: Annotated[float, Field(allow_inf_nan=True)] | None = None
    """Value that means no data, in addition to what the files declare."""
    align: bool | Literal["cover"] = False
    """Reproject frames that lie on another grid than the first, keeping their sums; ``cover``
    extends that grid until it holds all frames."""
    max_beyond: Part = 0.01
    """Share of a frame's people that may lie beyond the grid, and be left out, with ``align``."""
    chunks: Literal["auto"] | Positive = "auto"
    """Edge of the square chunks, in cells."""
    error: Literal["poisson"] | Annotated[float, Field(ge=0)] | PlaceName = "poisson"
    """Error of the data: Poisson's law of counts, a cell's relative error, as 0.05, or a raster of
    such errors on the grid of the frames."""
    intervals: PlaceName | None = None
    """Table of intervals that a population job has learned and exported, such as
    ``city_intervals.parquet``: places get the ends of the interval of their people."""
    register: Literal["shift"] | None = None
    """``shift`` moves frames that lie whole cells off to where most of them lie."""

    @model_validator(mode="after")
    def _times_once(self) -> FramesInput:
        if self.times is not None and "{" in self.frames:
            raise ValueError(
                f'[input] times are given, and frames is "{self.frames}", whose name tells them: '
                "leave one of them out"
            )
        if self.times is not None and (not self.times or self.start or self.end):
            raise ValueError(
                "[input] times names all times there are: give them, without start or end"
            )
        return self

    @property
    def error_file(self) -> str | None:
        """The raster of errors, if there is one."""
        return self.error if isinstance(self.error, str) and self.error != "poisson" else None


class Flow(Settings):
    """Horn-Schunck flow between frames."""

    iterations: Positive = 1
    """Relaxation steps; with several scales 30 unless it is given."""
    alpha: Annotated[float, Field(gt=0)] = 10.0
    """Smoothness of the flow, in people per cell; with several scales and ``log`` 2 unless it is
    given, in their logarithms."""
    centering: tuple[Literal[-1, 0, 1], Literal[-1, 0, 1], Literal[-1, 0, 1]] = (0, 0, 0)
    """Differences along x, y and time: 0 centred, +1 forward, -1 backward."""
    warm_start: bool = True
    """Start each frame from the flow of the frame before; with several scales from its own."""
    scales: Annotated[int, Field(ge=1, le=MOST_SCALES)] = 1
    """Scales of a pyramid, coarse to fine: 2 find motions of up to 7 cells, 3 up to 15; 1 is the
    scheme of the first work."""
    log: bool = False
    """Look at log(1 + people), so that villages count beside towns."""

    @model_validator(mode="before")
    @classmethod
    def _by_scales(cls, values: Any) -> Any:
        scales = values.get("scales") if isinstance(values, Mapping) else None
        if not isinstance(scales, int) or scales <= 1:
            return values
        alpha = 2.0 if values.get("log") is True else 10.0
        return {"iterations": 30, "alpha": alpha} | dict(values)

    @property
    def chained(self) -> bool:
        """Whether the flow of a frame starts from that of the frame before."""
        return self.warm_start and self.scales == 1


class Encoder(Settings):
    """The autoencoder of the windows around cells."""

    scope: Literal["shared", "frame"] = "shared"
    """One model for all frames (classes can be compared), or one for each frame."""
    symmetric: bool = True
    """Codes alike in all directions, whatever a cell's place; with ``false`` they know north and
    their place in the raster, as in the first work."""
    window: Annotated[int, Field(ge=3, le=31)] = 7
    """Cells along the side of a window, odd."""
    hidden: Annotated[tuple[Positive, ...], Field(min_length=1)] = (128, 16)
    """Units of the layers between a window and its description, mirrored on the way back; of the
    first, each of the eight views of ``symmetric`` has an eighth. With ``symmetric = false`` the
    default is 128 and 64."""
    latent: Positive = 16
    """Numbers that describe a window."""
    activation: Activation = "relu"
    """Activation of those layers."""
    latent_activation: Activation = "relu"
    """Activation of the description; with ``relu`` it is never negative."""
    l1: Annotated[float, Field(ge=0)] = 0.0
    """Regularisation: what the sum of the weights' magnitudes adds to the loss ..."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """... and that of their squares."""
    epochs: Positive = 200
    """Rounds of training, of 1000 windows each."""
    edge: Literal["neutral", "zero"] = "neutral"
    """What lies beyond the raster: nobody at rest, or 0 after scaling (as the original)."""
    seed: int = 0
    """Seed of the weights and of the windows."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train and encode; ``auto`` is a GPU where there is one."""

    @model_validator(mode="before")
    @classmethod
    def _by_symmetry(cls, values: Any) -> Any:
        plain = isinstance(values, Mapping) and values.get("symmetric") is False
        return {"hidden": (128, 64)} | dict(values) if plain else values

    @field_validator("window")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("expected an odd number of cells, so that a cell is in its middle")
        return value


class Classes(Settings):
    """K-means on the encoded windows."""

    k: Annotated[int, Field(ge=2)] | Literal["auto"] = 10
    """Number of classes; ``auto`` is the knee of the SSE curve over 2...20."""
    sample: Annotated[int, Field(ge=100)] = 100_000
    """Cells that the classes are fitted on."""
    seed: int = 0
    """Seed of the sample and of the start."""
    distance: Literal["windows", "codes"] = "windows"
    """Between cells: of the windows that their descriptions stand for, or of these themselves, each
    of their numbers by its standard deviation, as in the first work."""
    method: Literal["auto", "bisecting", "kmeans"] = "auto"
    """How their centres are fitted: all together, as in the first work, or by splitting one
    class after another in two until there are so many. Of many classes those hang on the encoder's
    seed more; ``auto`` is ``bisecting`` where ``k`` is more than seven."""
    hold: Annotated[float, Field(ge=0)] = 0.5
    """A cell keeps its class unless another is nearer by more than this; 0 lets go of it."""

    @property
    def fitted_by(self) -> Literal["bisecting", "kmeans"]:
        """The method, where it is not said by the number of classes."""
        if self.method != "auto":
            return self.method
        return "bisecting" if self.k != "auto" and self.k > FEW_CLASSES else "kmeans"


class Domain(Settings):
    """The cells that are trained on, classified and grouped."""

    cells: Literal["settled", "data", "inhabited"] = "settled"
    """Cells whose window sees people, all with data, or only those with people."""


class Communities(Settings):
    """DBSCAN of each class's cells."""

    eps: Annotated[float, Field(gt=0)] | str = 10.0
    """Reach of a cell, in cells, or as a distance such as ``"2.5 km"``."""
    min_samples: Positive = 50
    """Cells within reach, itself included, that make a core."""
    min_people: Annotated[float, Field(ge=0)] = 0.0
    """Communities with fewer people are dissolved."""
    min_density: Annotated[float, Field(ge=0)] = 50.0
    """People per km² of a class; cells of one with fewer are land between places, and in no
    community. With 0 they are grouped as well."""

    @field_validator("eps")
    @classmethod
    def _distance(cls, value: float | str) -> float | str:
        match = _DISTANCE.match(value) if isinstance(value, str) else None
        if isinstance(value, str) and not (match and float(match[1]) > 0):
            raise ValueError('expected a number of cells or a distance such as "2.5 km"')
        return value


class Links(Settings):
    """Links between the communities of consecutive frames."""

    rule: Literal["cosine", "overlap", "cosine+overlap", "direction"] = "cosine+overlap"
    """By the cells that move together, by the people in common, or by both; ``direction``: by the
    cosine between the flow forward and the flow back."""
    scales: Annotated[int, Field(ge=2, le=MOST_SCALES)] | None = None
    """Scales of a flow of log(1 + people) that moves communities before they are compared; without
    it they are compared in place, and ``direction`` takes 3."""
    share: Part = 0.25
    """Part of the people of either community that a link must carry."""
    displaced: bool = True
    """Link, too, a community that is gone with a new one of as many people close by."""

    @property
    def flow_scales(self) -> int | None:
        """Scales of the flow that communities are moved by; None where there is none."""
        return 3 if self.scales is None and self.rule == "direction" else self.scales


class Tracks(Settings):
    """What happens to communities and settlements, and what of it is reported."""

    memory: Annotated[int, Field(ge=0, le=100)] = 1
    """Frames that a community or a settlement may be away for and keep its number."""
    growth: Annotated[float, Field(ge=0)] = 0.05
    """Part of its people that it gains or loses when it grows or shrinks ..."""
    sigma: Annotated[float, Field(ge=0)] = 4.0
    """... and how many standard deviations of the counts."""
    part: Part = 0.1
    """Part of the people that each piece of a split or merger holds."""
    movement: bool = False
    """Count how many people moved into and out of each community and settlement, and by how many it
    grew itself: as the least movement that fits has it, not by migration records."""

    @property
    def rules(self) -> dict[str, Any]:
        """Settings of what makes an event."""
        return self.model_dump(include={"growth", "sigma", "part"})


class CommunitiesOutput(settings.Output):
    """Where the results go."""

    export: Annotated[tuple[CommunitiesFormat, ...], Formats] = ()
    """Further formats, written beside the store when the run is finished."""


class SettlementRules(Settings):
    """Which cells are a settlement, and what it is called."""

    density: Above0 = 300.0
    """People per km² of land from which a cell of 1 km belongs to a settlement."""
    min_people: Annotated[float, Field(ge=0)] = 500.0
    """People of a settlement; held, a new one needs 3 √min_people more, one that was there half."""
    centres: bool = False
    """Number and follow urban centres, too, as a layer of their own."""
    hold: bool = True
    """Hold cells and settlements from frame to frame, so that noise is no event."""
    land: PlaceName | None = None
    """Raster of permanent land on the grid of the frames; without it every cell is land."""
    built: PlaceName | None = None
    """Raster of built-up area on that grid; without it the rules that need it are left out."""
    units: Literal["share", "m2"] | None = None
    """What land and built-up area are in, where their files do not say."""
    names: Literal["geonames"] | PlaceName | None = None
    """``geonames``, or a file of points or polygons that settlements are called after."""
    column: str = "name"
    """The column of the file that holds the names."""

    @property
    def by_geonames(self) -> bool:
        """Whether settlements are called after the places of GeoNames, which want credit."""
        return self.names == "geonames"


class CommunitiesSettlements(SettlementRules):
    """The settlements that are found and followed beside the communities."""

    find: bool = True
    """Whether there are any."""


class CommunitiesTables(Settings):
    """How communities are found and followed, by a job of its own or at the end of another."""

    flow: Flow = Flow()
    encoder: Encoder = Encoder()
    classes: Classes = Classes()
    domain: Domain = Domain()
    communities: Communities = Communities()
    links: Links = Links()
    tracks: Tracks = Tracks()
    settlements: CommunitiesSettlements = CommunitiesSettlements()


class FramesTables(settings.Job):
    """A region's frames, and what is found in them."""

    input: FramesInput
    output: CommunitiesOutput


class CommunitiesJob(CommunitiesTables, FramesTables):
    """A region's frames, and how communities are found and followed in them.

    Examples
    --------
    >>> output = {"store": "out/oslo.icechunk"}
    >>> job = CommunitiesJob(name="oslo", input={"frames": "pop_{time:%Y}.tif"}, output=output)
    >>> job.communities.eps
    10.0
    """

    pipeline: Literal["communities"] = "communities"
    """The product."""

    @property
    def has_settlements(self) -> bool:
        """Whether settlements are found, too."""
        return self.settlements.find

    @property
    def hold(self) -> float:
        """How firmly classes are held; models of single frames have no classes in common."""
        return self.classes.hold if self.encoder.scope == "shared" else 0.0


class SettlementLinks(Settings):
    """Links between the settlements of consecutive frames, by the people in common."""

    share: Part = 0.25
    """Part of the people of either settlement that a link must carry."""
    displaced: bool = True
    """Link, too, a settlement that is gone with a new one of as many people close by."""


class SettlementsJob(FramesTables):
    """A region's frames, and the settlements that are followed in them.

    Examples
    --------
    >>> output = {"store": "out/oslo.icechunk"}
    >>> job = SettlementsJob(name="oslo", input={"frames": "pop_{time:%Y}.tif"}, output=output)
    >>> job.pipeline
    'settlements'
    """

    pipeline: Literal["settlements"] = "settlements"
    """The product."""
    settlements: SettlementRules = SettlementRules()
    links: SettlementLinks = SettlementLinks()
    tracks: Tracks = Tracks()

    @property
    def has_settlements(self) -> bool:
        """Whether settlements are found."""
        return True


class ScenesOutput(settings.Output):
    """Where the results go."""

    export: Annotated[tuple[ScenesFormat, ...], Formats] = ("cog",)
    """Further formats, written beside the store when the run is finished."""


class ScenesTables(Settings):
    """How cells are described and grouped, by a job of its own or at the end of another."""

    features: Features = Features()
    groups: Groups = Groups()


class ScenesJob(ScenesTables, settings.Job):
    """A region's aerial images, and how their cells are grouped.

    Examples
    --------
    >>> output = {"store": "out/town.icechunk"}
    >>> job = ScenesJob(name="town", input={"mosaic": "town.tif"}, output=output)
    >>> job.pipeline
    'scenes'
    """

    pipeline: Literal["scenes"] = "scenes"
    """The product."""
    input: Input
    cells: Grid = Grid()
    output: ScenesOutput


#: What ``network = "features"`` is: of what was tried on half a city, the best on other folds.
FEATURES: tuple[dict[str, Any], ...] = (
    {"network": "features"},
    {"network": "features", "head": "ridge"},
)


class Training(Settings):
    """How a model is trained; what is left out is as published for the kind of model."""

    weights: PlaceName | None = None
    """A model trained before, used as it is."""
    preset: Literal["100m", "300m"] = "100m"
    """Cells for which the published settings were found."""
    network: dict[str, Any] | Annotated[tuple[dict[str, Any], ...], Field(min_length=1)] = Field(
        default_factory=dict
    )
    """The network and its arguments, such as ``{widths = [16, 32, 64]}``; ``"features"``: the mean
    of trees and a ridge on what patches of the images find, and the default where an image has
    fewer pixels than the published network takes; a list of networks: the mean of them, where one
    that is listed again learns from another seed."""
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
    jitter: Part | None = None
    """Change brightness and contrast by up to this much."""
    normalise: Literal["half", "bands"] | None = None
    """[0, white] to [−1, 1], or each band by its mean and standard deviation."""
    balance: Part | None = None
    """0 draws cells as they come, 1 every number of people equally often."""
    patience: Positive | None = None
    """Epochs without a better loss after which the rate is halved."""
    stop_after: Positive | None = None
    """Epochs without a better loss after which training ends."""
    precision: Literal["float32", "bfloat16"] | None = None
    """``bfloat16``: learn and answer in 16 bits, faster where the processor can."""
    threads: Positive | None = None
    """Threads of the CPU; the result depends on them. All cores by default."""
    memory: Positive | None = None
    """Bytes of images to hold, 2 GiB by default; more are read again in every epoch, in an order
    that changes the result. Another number trains anew, also where all images fit into both."""
    seed: Seed = 0
    """Seed of weights, order and augmentation."""
    device: Device = "auto"
    """Where to train: ``auto`` is a GPU where there is one."""

    @field_validator("network", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple({"network": one} if isinstance(one, str) else one for one in value)
        if value == FEATURES[0]["network"]:
            return FEATURES
        return {"network": value} if isinstance(value, str) else value

    @property
    def members(self) -> tuple[dict[str, Any], ...]:
        """The networks, one or several of which the mean is taken."""
        return self.network if isinstance(self.network, tuple) else (self.network,)


class Count(Training):
    """The model that counts people."""

    kind: Literal["count", "transformer", "weighted"] = "count"
    """A regressor, the transformer, or a single-stage regressor that needs no presence."""
    learns_from: Literal["inhabited", "predicted"] = "inhabited"
    """Cells that are truly inhabited, or those that the presence model calls so."""


class Estimate(Settings):
    """How people are estimated."""

    rule: Literal["auto", "gate", "expected"] = "auto"
    """A gate of presence, presence × count, or what measures better on the cells to choose by."""
    threshold: Part = 0.5
    """With the gate, people are counted where the probability of presence is higher."""
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
    partial: Literal["raise", "skip", "scale"] = "raise"
    """Zones that reach beyond the mosaic are refused, left out, or fitted to their whole total."""
    whole: bool = False
    """In whole people, by largest remainder."""


class Intervals(Settings):
    """How sure the estimates are: intervals learned from errors on cells that no model has seen."""

    level: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Share of the truths that intervals are to hold."""
    bins: Positive = 10
    """Bins of predicted density, at most."""
    square: Annotated[int, Field(ge=2)] = 10
    """Cells per side of squares whose sums have intervals of their own."""
    zones: PlaceName | None = None
    """Polygons whose sums have intervals, too, such as municipalities."""
    name: str | None = None
    """The column with the zones' names."""


class Truth(Settings):
    """Known people of the mosaics' cells, which the estimates are compared with."""

    counts: PlaceName
    """Pattern of the counts' files, such as ``people_{time:%Y}.tif``."""
    column: str = "people"
    """Column of the people in a table, or the weight of points."""
    share: bool = False
    """Share the people of a raster on another grid among the cells, by area."""
    missing: Literal["unknown", "zero"] = "unknown"
    """What cells are that the counts do not list."""


class SecondJob(Settings):
    """A job that begins at the end of another, on what that has made."""

    store: PlaceName
    """Its repository, a folder."""
    export: tuple[str, ...] = ()


class Follow(CommunitiesTables, SecondJob):
    """The communities of the estimated frames, found and followed by a second job."""

    export: Annotated[tuple[CommunitiesFormat, ...], Formats] = ()
    """Its exports."""


class Scenes(ScenesTables, SecondJob):
    """Groups of cells of the first mosaic that look alike, found by a second job."""

    export: Annotated[tuple[ScenesFormat, ...], Formats] = ()
    """Its exports."""


class PopulationOutput(settings.Output):
    """Where the results go."""

    export: Annotated[
        tuple[Literal["cog", "geoparquet", "zarr", "stac", "report"], ...], Formats
    ] = ("cog",)
    """Further formats, written beside the store when the run is finished."""


class PopulationJob(settings.Job):
    """A region's aerial images, and how people are estimated in them.

    Examples
    --------
    >>> output = {"store": "out/town.icechunk"}
    >>> cells = {"counts": "people.tif"}
    >>> job = PopulationJob(name="town", input={"mosaic": "town.tif"}, cells=cells, output=output)
    >>> job.single_stage
    False
    """

    pipeline: Literal["population"] = "population"
    """The product."""
    drawn: Drawn | None = None
    """A country to draw before the run, with its images and people."""
    input: Images
    cells: Cells = Cells()
    presence: Training = Training()
    count: Count = Count()
    estimate: Estimate = Estimate()
    census: Census | None = None
    intervals: Intervals | None = None
    truth: Truth | None = None
    follow: Follow | None = None
    scenes: Scenes | None = None
    output: PopulationOutput

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
        frames = {"frames": pattern}
        # The intervals are those of the estimate, not of people that keep known totals.
        if self.intervals and self.census is None and "geoparquet" in self.output.export:
            frames["intervals"] = f"{self.export_place}/{self.name}_intervals.parquet"
        return CommunitiesJob.model_validate(
            {
                "name": f"{self.name}-communities",
                "input": frames,
                "output": self.follow.model_dump(include={"store", "export"}),
                **self.follow.model_dump(exclude={"store", "export"}),
            }
        )

    @property
    def grouped(self) -> ScenesJob | None:
        """The job that groups the cells of the first mosaic; None without ``[scenes]``."""
        if self.scenes is None:
            return None
        return ScenesJob.model_validate(
            {
                "name": f"{self.name}-scenes",
                "input": self.input.model_dump(exclude={"bands"}),
                "cells": self.cells.model_dump(include=set(Grid.model_fields)),
                "output": self.scenes.model_dump(include={"store", "export"}),
                **self.scenes.model_dump(exclude={"store", "export"}),
            }
        )

    @model_validator(mode="after")
    def _makes_sense(self) -> PopulationJob:
        if self.follow is not None and "cog" not in self.output.export:
            raise ValueError(
                f"[output] export is {list(self.output.export)}, and [follow] reads the estimates "
                'as COGs: add "cog"'
            )
        if not self.cells.labelled and not self._trained:
            raise ValueError(
                "[cells] has no counts to learn from: give counts, totals, a folder of cells, or "
                "the weights of trained models in [presence] and [count]"
            )
        if self.intervals and self.cells.folder is None and self.cells.counts is None:
            raise ValueError(
                "[intervals] are learned from errors on cells of known people, and [cells] has no "
                "counts: give counts or a folder of cells, or leave [intervals] out"
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
