"""The settings of the scenes job: aerial images in, groups of cells that look alike out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from popdask.job import settings
from popdask.job.images import Above0, Device, Grid, Input, Seed
from popdask.job.settings import PlaceName, Positive, Settings


class Features(Settings):
    """How a cell is described: 1536 features of EfficientNet-B3."""

    weights: PlaceName | Literal["imagenet"] | None = None
    """None for a random network, ``imagenet`` for the published weights, or a file of them."""
    bands: tuple[int, ...] | None = None
    """Bands to show, by position from 0: one, or three; by default all."""
    white: Above0 | None = None
    """The value that is white; by default the largest of the images' type."""
    size: Positive = 300
    """Rows and columns that a cell is resized to."""
    batch_size: Positive = 32
    """Cells that pass through the network at once on a GPU."""
    device: Device = "auto"
    """Where: ``auto`` is a GPU where the worker has one."""
    seed: Seed = 0
    """Of a random network."""


class Groups(Settings):
    """How cells are grouped."""

    k: tuple[Positive, ...] = (3, 4, 5)
    """Numbers of groups of KMeans."""
    pca: Positive = 128
    """Principal components, at most."""
    dimensions: Annotated[int, Field(ge=2)] = 20
    """Dimensions that UMAP leaves."""
    neighbours: Annotated[int, Field(ge=2)] = 50
    """Cells that UMAP takes to be around each."""
    min_dist: Annotated[float, Field(ge=0, le=1)] = 0.05
    """How close UMAP may put cells."""
    epochs: Positive = 200
    """Of UMAP."""
    min_cluster_size: Annotated[int, Field(ge=2)] = 500
    """Cells of a group of HDBSCAN, at least."""
    min_samples: Positive = 50
    """Cells around a core of HDBSCAN, at least."""
    seed: Seed = 0
    """Of the components, UMAP and KMeans."""


#: Further formats: rasters of the groupings, a table of the cells, a page.
Format = Literal["cog", "parquet", "report"]


class Output(settings.Output):
    """Where the results go."""

    export: tuple[Format, ...] = ("cog",)
    """Further formats, written beside the store when the run is finished."""


class ScenesJob(settings.Job):
    """A region's aerial images, and how their cells are grouped."""

    pipeline: Literal["scenes"] = "scenes"
    """The product."""
    input: Input
    cells: Grid = Grid()
    features: Features = Features()
    groups: Groups = Groups()
    output: Output
