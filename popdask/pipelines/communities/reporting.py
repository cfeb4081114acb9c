"""The report of a communities job: its results, and how good the analysis is."""

from __future__ import annotations

from collections.abc import Iterator

from popdask import figures
from popdask.job import CommunitiesJob
from popdask.pipelines.communities.pictures import charts
from popdask.report import Picture
from popdask.store import RegionStore

#: Title of each picture, and how to read it.
WORDS = {
    "flow": (
        "Motion between the last two frames",
        "Arrows show where people seem to move to, as optical flow sees it. It describes places "
        "for the classes; it is no count of people who moved house.",
    ),
    "change": (
        "Change since the first frame",
        "Where there are more people than in the first frame, and where fewer.",
    ),
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
}


def illustrate(job: CommunitiesJob, region: RegionStore, branch: str) -> Iterator[Picture]:
    """Draw motion, change, and how good the encoder and the classes are."""
    found = region.dataset(branch)
    first, last = found.isel(time=0), found.isel(time=-1)
    drawn = {"flow": figures.flow_figure(last["population"], last[["u", "v"]])}
    if found.sizes["time"] > 1:
        drawn["change"] = figures.change_figure(first["population"], last["population"])
    for name, figure in [*drawn.items(), *charts(job, region, found, branch)]:
        yield Picture(*WORDS[name], figure)
