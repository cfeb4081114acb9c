"""Years that lie elsewhere, towns that move, and years that are missing, on real grids.

*Displaced*: a year of Norway at 1 km and the next, which is laid some whole cells aside. It is told
how far, how many cells with people find the way (to a quarter of a cell), whether settlements are
linked as they are in place, and which share of the change is movement. The peers are dense flows of
OpenCV on log(1 + people). *Towns*: two that move differently, on a drawn
world. *Gaps*: frames of Oslo in which there is no data; tracks that were there before and behind
the gap keep their numbers. *Cost*: the communities job with and without classes that are held,
memory and like for like.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from benchmarks.events import listed, write_job
from benchmarks.machine import Machine, Row, duration, in_child, measured, timed
from popdask.config import load_job
from popdask.errors import InputError
from popdask.io import open_frames
from popdask.io.cube import to_1km
from popdask.tracking.flow import optical_flow
from popdask.tracking.growth import growth, growth_by_label
from popdask.tracking.link import compare_frames, link
from popdask.tracking.registration import displacement
from popdask.tracking.settlements import settlements
from popdask.tracking.tracks import tracks

SHIFTS = ((0, 4), (8, -8), (-3, 5), (-7, -1))
NEAR = 0.25  # cells
FAR = {"scales": 3, "log": True}
HELD = {"classes.hold": 0, "links.share": 0, "tracks.memory": 0}
YEARS = range(2002, 2020)


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Return what is found of years that are displaced or missing."""
    for shift in SHIFTS[:1] if quick else SHIFTS:
        yield in_child(displaced, shift, quick)
    yield in_child(towns)
    if not quick:
        for missing in (1, 2):
            yield in_child(gaps, missing)
        yield in_child(cost)


def frames(folder: str, years: tuple[int, ...], *, kilometres: bool = True) -> xr.DataArray:
    """Read frames of a real grid, in memory."""
    name = folder.split("_")[0]
    place = Path(os.environ.get("POPDASK_DATA", "")) / folder
    paths = {str(year): str(place / f"{name}_pop_250m_{year}.tif") for year in years}
    if absent := [path for path in paths.values() if not Path(path).is_file()]:
        raise InputError(
            f"{absent[0]} is not there; expected the grids in the folder that POPDASK_DATA names; "
            "set it"
        )
    people = open_frames(paths)["population"]
    return (to_1km(people) if kilometres else people).compute().astype(np.float32)


def laid_aside(values: NDArray, shift: tuple[int, int], fill: float = 0) -> NDArray:
    """Lay a frame some cells down and to the right."""
    moved = np.full_like(values, fill)
    there = tuple(slice(max(s, 0), n + min(s, 0)) for s, n in zip(shift, values.shape, strict=True))
    here = tuple(
        slice(max(-s, 0), n + min(-s, 0)) for s, n in zip(shift, values.shape, strict=True)
    )
    moved[there] = values[here]
    return moved


def displaced(shift: tuple[int, int], quick: bool) -> Row:
    """Compare a year with the next that lies aside, and with itself."""
    dask.config.set(scheduler="sync")
    people = frames("oslo_250m" if quick else "norway_250m", (2018, 2019))
    there = people.copy()
    there[1] = laid_aside(people[1].values, shift)
    copied = there.copy()
    copied[1] = laid_aside(people[0].values, shift)
    (way,) = displacement(there).itertuples()
    flow, spent = timed(lambda: optical_flow(there, centering=(0, 0, 1), **FAR).compute())
    own = optical_flow(copied, centering=(0, 0, 1), **FAR).compute()
    inner = ~np.isnan(laid_aside(np.zeros(people.shape[1:]), tuple(-s for s in shift), np.nan))
    lived = (people[0].values > 0) & inner
    share = near(np.stack([own["v"][0], own["u"][0]]), shift, lived)
    still = optical_flow(people, centering=(0, 0, 1), **FAR).compute()
    moved, rest = (growth_by_label(growth(*pair))["explained"][0]
                   for pair in ((there, flow), (people, still)))  # fmt: skip
    peers = [f"{name} {near(theirs, shift, lived):.1%}" for name, theirs in others(copied)]
    recall, precision = linked(people, there, shift, flow)
    return Row(
        f"moves, a year {shift[0]:+d}, {shift[1]:+d} cells aside",
        f"{'Oslo' if quick else 'Norway'}, 1 km, 2 frames",
        f"links {recall:.3f} recall, {precision:.3f} precision; {share:.1%} of cells with people",
        "; ".join(peers) or "–",
        also=f"named {way.dy:+.2f}, {way.dx:+.2f}; movement explains {moved:.3f} of the change, "
        f"{rest:.3f} in place; flow {duration(spent.cpu)}",
    )


def near(flow: NDArray, shift: tuple[int, int], where: NDArray[np.bool_]) -> float:
    """The share of cells whose flow (v, u) is a shift, to a quarter of a cell."""
    miss = np.hypot(*(part - way for part, way in zip(flow, shift, strict=True)))
    return float((miss[where] < NEAR).mean())


def others(people: xr.DataArray) -> Iterator[tuple[str, NDArray]]:
    """Compute the dense flows of OpenCV (v, u)."""
    import cv2  # of the extra "bench", with trackeval

    levels = np.log1p(people.values)
    grey = [np.uint8(255 * frame / levels.max()) for frame in levels]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    yield "DIS", dis[..., ::-1].transpose(2, 0, 1)
    found = cv2.calcOpticalFlowFarneback(*grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    yield "Farnebäck", found[..., ::-1].transpose(2, 0, 1)


def linked(
    people: xr.DataArray, there: xr.DataArray, shift: tuple[int, int], flow: xr.Dataset
) -> tuple[float, float]:
    """Recall and precision of the links of settlements that lie aside, against those in place."""
    labels = settlements(people.chunk(time=1), min_people=500).compute()
    true = pairs(link(labels, people, rule="overlap", share=0.25))
    aside = labels.copy()
    aside[1] = laid_aside(labels[1].values, shift, -1)
    gone = set(np.setdiff1d(labels[1], aside[1]))
    true = {pair for pair in true if pair[1] not in gone}
    found = pairs(link(aside, there, rule="overlap", share=0.25, flow=flow))
    return len(found & true) / len(true), len(found & true) / len(found)


def pairs(links: pd.DataFrame) -> set[tuple[int, int]]:
    """The communities that are linked."""
    return set(zip(links["source"], links["target"], strict=True))


def towns() -> Row:
    """Two towns: one goes 3 cells right, one 2 up and 4 left."""
    dask.config.set(scheduler="sync")
    rng, (down, right) = np.random.default_rng(1), np.mgrid[:200, :300]
    frame = np.zeros((2, 200, 300), np.float32)
    parts = []
    for (row, column), shift in (((100, 90), (0, 3)), ((90, 210), (-2, -4))):
        level = 2000 * np.exp(-np.hypot(down - row, right - column) / 6)
        level = level * rng.gamma(1.0, 1.0, level.shape)
        level[level < 3] = 0
        town = rng.poisson(level)
        frame += np.stack([town, laid_aside(rng.poisson(town), shift)])
        parts.append((town > 0, shift))
    years = pd.date_range("2000", periods=2, freq="YS")
    people = xr.DataArray(frame, {"time": years}, ("time", "y", "x"))
    flow = optical_flow(people, centering=(0, 0, 1), **FAR)
    found = np.stack([flow["v"][0].values, flow["u"][0].values])
    told = " and ".join(f"{near(found, shift, where):.1%}" for where, shift in parts)
    return Row("moves, two towns", "200 × 300", f"{told} of their cells")


def gaps(missing: int) -> Row:
    """Take frames in the middle of Oslo's away, and see which tracks keep their numbers."""
    dask.config.set(scheduler="sync")
    people = frames("oslo_250m", tuple(YEARS))
    middle = people.sizes["time"] // 2
    (kept, of), spent = measured(lambda: _kept(people, middle, middle + missing))
    return Row(
        f"moves, {missing} of {len(YEARS)} frames without data",
        f"Oslo, 1 km, memory {missing}",
        f"{kept} of {of} tracks keep their numbers ({kept / of:.1%})",
        also=duration(spent.cpu),
    )


def _kept(people: xr.DataArray, first: int, behind: int) -> tuple[int, int]:
    """Count the tracks that live through some frames, and those that do so without the data."""
    memory, holey = behind - first, people.copy()
    holey[first:behind] = np.nan
    (whole, told), (labels, found) = (_followed(cube, memory) for cube in (people, holey))
    through = told.loc[first - 1].merge(told.loc[behind], on="track")
    kept = 0
    for before, after in through[["community_x", "community_y"]].to_numpy():
        cells = labels[behind][whole[behind] == after]
        cells = cells[cells >= 0]
        number = found.loc[first - 1].set_index("community")["track"].get(before)
        then = found.loc[behind].set_index("community")["track"]
        kept += bool(len(cells)) and then[np.bincount(cells).argmax()] == number
    return int(kept), len(through)


def _followed(people: xr.DataArray, memory: int) -> tuple[NDArray, pd.DataFrame]:
    """Find settlements and their tracks: labels, and the tracks by frame."""
    lazy = people.chunk(time=1)
    labels = settlements(lazy).compute()
    links, ends = compare_frames(
        labels.chunk(time=1), lazy, rule="overlap", share=0.25, memory=memory
    )
    times = people["time"].values
    told = tracks(links, listed(labels, people), ends=ends, memory=memory, times=times)
    told["frame"] = np.searchsorted(times, told["time"])
    columns = ["frame", "community", "track"]
    return labels.values, told[columns].drop_duplicates().set_index("frame")


def cost() -> Row:
    """Run the communities job with and without what makes its events believable."""
    ours, plain = (min(in_child(_job_time, with_it) for _ in range(2)) for with_it in (True, False))
    return Row(
        "moves, cost of the communities job",
        "Oslo, 250 m, 4 frames",
        duration(ours),
        f"without classes held, shares, memory {duration(plain)}",
        f"{ours / plain - 1:+.0%}",
    )


def _job_time(with_it: bool) -> float:
    """Processor time of the communities job."""
    from popdask.workflow.communities import run

    dask.config.set(scheduler="sync")
    people = frames("oslo_250m", (2016, 2017, 2018, 2019), kilometres=False)
    with tempfile.TemporaryDirectory() as folder:
        write_job(people, Path(folder))
        settings = load_job(Path(folder) / "job.toml", {} if with_it else HELD)
        return timed(lambda: run(settings))[1].cpu
