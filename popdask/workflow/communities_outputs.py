"""The pictures of a communities job: maps of every stage, and how good its models are.

store → cells drawn at random → codes, reconstructions → analysis → figures

Maps are reduced chunk by chunk and the analysis reads the windows of some cells only, so that
pictures of a large region take no more memory than those of a small one. The cells are drawn by
the hash of their global index: the same pictures under any chunking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from popdask.blocks.sampling import gather_cells, gather_windows, sample_cells
from popdask.config.jobs import Classes, CommunitiesJob
from popdask.errors import InputError
from popdask.plot import charts, maps, reduced
from popdask.report.page import Picture
from popdask.store.content import MAIN
from popdask.store.repository import RegionStore
from popdask.tracking import classify as clustering
from popdask.tracking import diagnostics, encoding
from popdask.tracking.autoencoder import FittedEncoder
from popdask.tracking.classify import ClassModel, classify
from popdask.tracking.growth import divergence, laplacian
from popdask.workflow.settlements import CHANGE_WORDS, change_maps, settlements_map

CELLS = 100_000  # reconstructed, shared out among the models
CURVE_CELLS = 20_000  # grouped into 2…20 classes
SILHOUETTE_CELLS = 5_000  # compared with each other
KS = range(2, 21)
BATCH = 10_000  # cells that are encoded at once
CLOSE = 256  # cells along the side of what is drawn beside its reconstruction
#: Encoders and classifiers by name, each with the frames that it serves.
Models = dict[str, tuple[FittedEncoder, ClassModel, slice]]
#: Title of each picture, and how to read it.
WORDS = {
    "flow": (
        "Motion between the last two frames",
        "Arrows show where people seem to move to, as optical flow sees it. It describes places "
        "for the classes; it is no count of people who moved house.",
    ),
    **CHANGE_WORDS,
    "loss": (
        "How the encoder learned",
        "The error of the autoencoder, which learns to describe a cell's surroundings in a few "
        "numbers, after each round of training. It should fall and then level out.",
    ),
    "sse": (
        "How many classes",
        "How much the cells of a class still differ, for different numbers of classes. Beyond the "
        "bend, more classes explain little more.",
    ),
    "silhouettes": (
        "How distinct the classes are",
        "Near 1, a cell is like its class and unlike the others; below 0, it would fit another "
        "class better.",
    ),
    "error": (
        "What the description keeps of people",
        "How far the people of a cell, read back from its description, are from the truth, by how "
        "many live there.",
    ),
    "direction": (
        "What the description keeps of motion",
        "Near 1, the direction of motion read back from a cell's description is the true one; by "
        "how fast the motion is.",
    ),
    "speed_error": (
        "What the description keeps of speed",
        "How far the motion read back from a cell's description is from the true one, beside what "
        "it would be if nothing moved; and how many cells are how fast, truly and as read back.",
    ),
    "reconstruction": (
        "A place as it is described",
        "The surroundings of the most populous place, and what the descriptions of its cells keep "
        "of their people.",
    ),
}


def figures(job: CommunitiesJob, region: RegionStore) -> Iterator[tuple[str, Figure]]:
    """Draw all pictures of the last finished run."""
    # Uses the current Dask client, if there is one, else Dask's default scheduler. Where there is
    # a model for each frame, classes are analysed of the last frame.
    found = region.dataset()
    models = _models(job, region, found)  # what is missing is said before maps are drawn
    yield from _maps(job, region, found)
    yield from analysis_charts(job, found, models)


def _maps(
    job: CommunitiesJob, region: RegionStore, found: xr.Dataset
) -> Iterator[tuple[str, Figure]]:
    """Draw the stages of the last frame, and what has changed since the first."""
    communities, tracks = region.table("communities"), region.table("tracks")
    last = found.isel(time=-1)
    cubes = (found["population"], found["classes"], found["community"])
    yield "world", maps.world_figure(*cubes, communities, tracks, frames=4)
    if "settlement" in found:
        yield "settlements", settlements_map(region, last)
    yield "population", maps.map_figure(last["population"])
    yield "flow", maps.flow_figure(last["population"], last[["u", "v"]])
    yield "speed", maps.speed_figure(last["population"], last[["u", "v"]])
    yield "divergence", maps.field_figure(divergence(last[["u", "v"]]))
    yield "laplacian", maps.field_figure(laplacian(last["population"]))
    yield "classes", maps.map_figure(last["classes"], last["population"])
    labels = last["community"]
    yield "communities", maps.map_figure(labels, last["population"], tracks=tracks)
    yield (
        "class_panels",
        charts.class_panels_figure(last["classes"], labels, last["population"]),
    )
    yield (
        "tracks",
        maps.journey_figure(found["population"], found["community"], communities, tracks),
    )
    yield from change_maps(job, found)
    if found.sizes["time"] > 1:
        links = region.table("links")
        latest = links[(links["next"] == links["next"].max()) & (links["gap"] == 0)]
        yield "assignment", charts.assignment_figure(latest)
    numbers = tracks.drop_duplicates(["time", "community"])[["time", "community", "track"]]
    means = diagnostics.community_means(communities).merge(numbers, on=["time", "community"])
    yield "means", maps.means_figure(means, last["population"])


def analysis_charts(
    job: CommunitiesJob, found: xr.Dataset, models: Models
) -> Iterator[tuple[str, Figure]]:
    """Draw what the models have learned, and how well."""
    histories = {
        name.removesuffix("T000000"): encoder.loss_history for name, (encoder, *_) in models.items()
    }
    yield "loss", charts.loss_figure(histories)
    drawn = [
        _sample(found.isel(time=frames), encoder, model, CELLS // len(models), job.hold)
        for encoder, model, frames in models.values()
    ]
    samples = [sample for sample in drawn if sample is not None]
    if not samples:  # nobody lives there
        return
    yield "sse", _sse(samples[-1], job.classes)
    yield "silhouettes", _silhouettes(samples[-1])
    true = np.concatenate([sample.features for sample in samples])
    remembered = np.concatenate([sample.reconstruction for sample in samples])
    errors = diagnostics.error_by_population(true[:, 0], remembered[:, 0])
    yield "error", charts.error_figure(errors)
    cosines = diagnostics.cosine_by_speed(true[:, 1:], remembered[:, 1:])
    yield "direction", charts.cosine_figure(cosines)
    speeds = diagnostics.error_by_speed(true[:, 1:], remembered[:, 1:])
    yield "speed_error", maps.speed_error_figure(speeds)
    encoder, _, frames = list(models.values())[-1]
    yield "reconstruction", _reconstruction(found.isel(time=frames).isel(time=-1), encoder)


def _models(
    job: CommunitiesJob, region: RegionStore, found: xr.Dataset, branch: str = MAIN
) -> Models:
    """Read the encoders and classifiers, each with the frames that it serves."""
    if job.encoder.scope == "shared":
        serves = {"shared": slice(None)}
    else:
        times = found["time"].values.astype("datetime64[s]").astype(str)
        serves = {time.replace(":", ""): slice(i, i + 1) for i, time in enumerate(times)}
    files, models = region.files(branch), {}
    for name, frames in serves.items():
        if f"classifier-{name}.safetensors" not in files:
            raise InputError(
                f"{region.path} has no models of [encoder] scope {job.encoder.scope!r}: run the "
                "job with its present settings first."
            )
        encoder = FittedEncoder.from_bytes(files[f"encoder-{name}.safetensors"])
        model = ClassModel.from_bytes(files[f"classifier-{name}.safetensors"])
        models[name] = (encoder, model, frames)
    return models


@dataclass(frozen=True)
class _Sample:
    """Some cells that have a class, as one model sees them."""

    encoder: FittedEncoder
    model: ClassModel
    features: NDArray[np.float32]  # People, u and v of the cells themselves, clipped, (n, 3)
    latent: NDArray[np.float32]  # their codes, (n, latent)
    reconstruction: NDArray[np.float32]  # what the codes remember of the features, (n, 3)
    before: NDArray[np.int16]  # their classes in the frame before, −1 where there is none, (n,)
    hold: float  # how firmly classes are held

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """The codes as the classes see them."""
        return self.model.transform(self.latent)

    @cached_property
    def classes(self) -> NDArray[np.int16]:
        """The cells' classes, held as those of the run are."""
        latent = xr.DataArray(self.latent[None], dims=("y", "x", "latent"))
        first = xr.DataArray(self.before[None], dims=("y", "x"))
        return classify(latent, self.model, hold=self.hold, first=first).values[0]


def _sample(
    found: xr.Dataset, encoder: FittedEncoder, model: ClassModel, n: int, hold: float
) -> _Sample | None:
    """Draw cells, read the windows around them, encode and decode these."""
    cells = sample_cells(found["classes"] >= 0, n)
    if not len(cells):
        return None
    features = encoding.stack_features(found["population"], found[["u", "v"]])
    windows = gather_windows(features, cells, size=encoder.window, fill=encoder.fill)
    batches = [slice(i, i + BATCH) for i in range(0, len(cells), BATCH)]
    latent, remembered = (
        np.concatenate([see(windows[at], cells[at]) for at in batches])
        for see in (encoder.encode_windows, encoder.reconstruct_windows)
    )
    true = np.nan_to_num(windows[..., encoder.window // 2, encoder.window // 2])
    before = _classes_before(found["classes"], cells)
    return _Sample(encoder, model, true, latent, remembered, before, hold)


def _reconstruction(last: xr.Dataset, encoder: FittedEncoder) -> Figure:
    """Draw the surroundings of the most populous place beside what codes remember of them."""
    side = max(last["classes"].shape)
    parts = -(-side // CLOSE)
    people, square = reduced(last["population"], parts, by="sum"), -(-side // parts)
    place = np.unravel_index(int(np.nan_to_num(people).argmax()), people.shape)
    y, x = (slice(int(at) * square, (int(at) + 1) * square) for at in place)
    features = encoding.stack_features(last["population"], last[["u", "v"]])
    codes = encoding.reconstruct(features, encoder, mask=last["classes"] >= 0, device="cpu")
    rebuilt, true = codes.isel(channel=0, y=y, x=x), last["population"].isel(y=y, x=x)
    rebuilt = rebuilt.clip(min=0).fillna(0).where(true.notnull())  # noqa: PD004
    return charts.reconstruction_figure(true, rebuilt)


def _classes_before(classes: xr.DataArray, cells: NDArray[np.int64]) -> NDArray[np.int16]:
    """Read the classes of cells (time, y, x) in the frame before each; −1 before the first."""
    before = np.full(len(cells), -1, np.int16)
    later = cells[:, 0] > 0
    before[later] = gather_cells(classes, cells[later] - (1, 0, 0))
    return before


def _sse(sample: _Sample, settings: Classes) -> Figure:
    """Draw the curve that the classifier kept, else that of some of the cells."""
    if sample.model.curve is not None:
        return charts.sse_figure(sample.model.curve, sample.model.k)
    rows = sample.latent[:CURVE_CELLS]
    ks = KS[: max(len(np.unique(sample.points[:CURVE_CELLS], axis=0)) - 1, 1)]
    encoder = sample.encoder if settings.distance == "windows" else None
    method = settings.fitted_by
    curve = clustering.fit_classes(rows, "auto", ks=ks, encoder=encoder, method=method).curve
    assert isinstance(curve, pd.Series)  # "auto" keeps it
    return charts.sse_figure(curve, sample.model.k, cells=len(rows))


def _silhouettes(sample: _Sample) -> Figure:
    """Draw as many cells of a rare class as of a common one; the mean counts how common."""
    classes = pd.Series(sample.classes)
    few = classes.groupby(classes).head(SILHOUETTE_CELLS // classes.nunique()).index
    values = diagnostics.silhouettes(sample.points[few], sample.classes[few])
    cells = {int(str(number)): int(count) for number, count in classes.value_counts().items()}
    return charts.silhouette_figure(values, sample.classes[few], cells=cells)


def illustrate(job: CommunitiesJob, region: RegionStore, branch: str) -> Iterator[Picture]:
    """Draw motion, change, and how good the encoder and the classes are."""
    found = region.dataset(branch)
    last = found.isel(time=-1)
    flow = "flow", maps.flow_figure(last["population"], last[["u", "v"]])
    changes = change_maps(job, found)
    learned = analysis_charts(job, found, _models(job, region, found, branch))
    for name, figure in [flow, *changes, *learned]:
        yield Picture(*WORDS[name], figure, wide=name == "growth")
