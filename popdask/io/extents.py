"""What frames on other grids have beyond the grid that they are brought onto, and grids of all.

Counts are moved by `popdask.io.grids` one block of the source at a time: what a block has, less
what of it lies on the grid, lies beyond.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pandas as pd

from popdask.errors import InputError
from popdask.io.frames import frame_time, time_text
from popdask.io.rasters import read_counts, read_grid

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


CHUNK = 1024  # cells along a side of a block, where nothing else is asked for
_ROUNDING = 1e-9  # of the people of a raster

Frames = Mapping[Any, str]


def covering_grid(grids: Sequence[GeoBox]) -> GeoBox:
    """Extend the first of some grids by whole cells, so that it holds the others."""
    from odc.geo.geobox import GeoBox

    first = grids[0]
    sides = [_reach(grid, first) for grid in grids]
    top, left = (math.floor(min(side[i] for side in sides)) for i in (0, 1))
    bottom, right = (math.ceil(max(side[i] for side in sides)) for i in (2, 3))
    transform = first.transform * first.transform.translation(left, top)
    return GeoBox((bottom - top, right - left), transform, first.crs)


def target_grid(grids: Sequence[GeoBox], align: bool | str) -> GeoBox:
    """The grid of a cube: that of its first frame, or with ``"cover"`` one that holds all."""
    return covering_grid(grids) if align == "cover" else grids[0]


def grids_of(paths: Iterable[str], align: bool | str) -> tuple[dict[str, GeoBox], GeoBox]:
    """Read the headers of frames: the grid of each, and the one of the cube that they make."""
    from popdask.io.grids import describe_grid, same_grid

    grids = {path: read_grid(path) for path in paths}
    first, grid = next(iter(grids)), target_grid(list(grids.values()), align)
    for path, other in grids.items():
        if not (align or same_grid(other, grid)):
            raise InputError(
                f"{path} has {describe_grid(other)}, but {first} has {describe_grid(grid)}; "
                "expected one grid for all frames; pass align=True to bring them onto the first"
            )
    return grids, grid


def people_beyond(
    frames: Frames, *, align: bool | str = True, nodata: float | None = None
) -> pd.DataFrame:
    """Count the people of frames that lie beyond the grid onto which they are brought.

    Parameters
    ----------
    frames : mapping
        ``{time: path or URL}``; the first in order of time gives the grid.
    align : bool or "cover", optional
        As for `open_frames`.
    nodata : float, optional
        As for `open_frames`.

    Returns
    -------
    DataFrame
        time, raster (people of the frame, for frames on another grid), beyond; a row for each frame
        on another grid.

    Raises
    ------
    InputError
        If a frame is missing, or holds impossible counts.

    Examples
    --------
    >>> import tempfile
    >>> from popdask.synthetic import moving_cities
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first, second = moving_cities(frames=6).write(folder)[:2]
    ...     len(people_beyond({"2000": first, "2001": second}))  # none is on another grid
    0
    """
    from popdask.io.grids import same_grid

    times = {frame_time(time): str(path) for time, path in frames.items()}
    paths = {time: times[time] for time in sorted(times)}
    grids = {time: read_grid(path) for time, path in paths.items()}
    target = target_grid(list(grids.values()), align)
    rows = []
    for time, grid in grids.items():
        if align is not False and not same_grid(grid, target):
            total, inside = _people(paths[time], grid, target, nodata)
            beyond = total - inside
            rows.append((time, total, beyond if beyond > _ROUNDING * total else 0.0))
    return pd.DataFrame(rows, columns=["time", "raster", "beyond"])


def beyond_texts(table: pd.DataFrame) -> Iterable[str]:
    """Say of each frame how many people lie beyond the grid, where some do.

    Examples
    --------
    >>> import pandas as pd
    >>> told = {"time": [pd.Timestamp(2006, 1, 1)], "raster": [200.0], "beyond": [3.0]}
    >>> list(beyond_texts(pd.DataFrame(told)))
    ['3.0 of the 200.0 people of 2006-01-01 (1.50%) lie beyond the grid of the first frame']
    """
    for _, row in table[table["beyond"] > 0].iterrows():
        day, total, beyond = time_text(row["time"]), row["raster"], row["beyond"]
        yield (
            f"{beyond:,.1f} of the {total:,.1f} people of {day} ({beyond / total:.2%}) "
            "lie beyond the grid of the first frame"
        )


def check_beyond(table: pd.DataFrame, most: float) -> None:
    """Refuse frames of which too large a share lies beyond the grid.

    Raises
    ------
    InputError
        If it is more than `most` of a frame's people.

    Examples
    --------
    >>> import pandas as pd
    >>> told = {"time": [pd.Timestamp(2006, 1, 1)], "raster": [200.0], "beyond": [3.0]}
    >>> check_beyond(pd.DataFrame(told), most=0.02)
    """
    over = table[table["beyond"] > most * table["raster"]]
    if len(over):
        (text,) = beyond_texts(over.iloc[:1])
        raise InputError(
            f"{text}, and would be left out; expected at most {most:.0%}; set [input] align = "
            '"cover" for a grid that holds all frames, begin with a frame that does, or set '
            "[input] max_beyond to the share that may be left out"
        )


def _people(path: str, grid: GeoBox, target: GeoBox, nodata: float | None) -> tuple[float, float]:
    """Count everyone of a raster, and those on the target grid, block by block."""
    tops, lefts = (range(0, size, CHUNK) for size in grid.shape)
    parts = [
        dask.delayed(_people_of_block)(path, grid, target, nodata, top, left)
        for top, left in itertools.product(tops, lefts)
    ]
    totals = dask.compute(*parts)
    return math.fsum(total for total, _ in totals), math.fsum(inside for _, inside in totals)


def _people_of_block(
    path: str, grid: GeoBox, target: GeoBox, nodata: float | None, top: int, left: int
) -> tuple[float, float]:
    from popdask.io.grids import share_out, source_window, turns

    window = (
        slice(top, min(top + CHUNK, grid.shape[0])),
        slice(left, min(left + CHUNK, grid.shape[1])),
    )
    people, inside = read_counts(path, *window, nodata=nodata), 0.0
    for turned in turns(grid, target):
        rows, columns = source_window(target, turned, *window)
        if rows.start < rows.stop and columns.start < columns.stop:
            moved = share_out(people, turned, window, target, rows, columns)
            inside += float(np.nansum(moved))
    return float(np.nansum(people, dtype="float64")), inside


def _reach(grid: GeoBox, first: GeoBox) -> tuple[float, float, float, float]:
    """Top, left, bottom and right of a grid, in cells of the first."""
    from popdask.io.grids import carry, describe_grid, turns

    rows, columns = (np.arange(size + 1) for size in grid.shape)
    ring_row = np.concatenate([0 * columns, 0 * columns + rows[-1], rows, rows])
    ring_column = np.concatenate([columns, columns, 0 * rows, 0 * rows + columns[-1]])
    reaches = []
    for turned in turns(grid, first):
        row, column = carry(ring_row, ring_column, turned, first)
        if np.isfinite(row).all() and np.isfinite(column).all():
            row, column = np.round(row, 6), np.round(column, 6)  # cells that meet but for rounding
            reaches.append((row.min(), column.min(), row.max(), column.max()))
    if not reaches:
        raise InputError(
            f"{describe_grid(grid)} cannot be carried onto {describe_grid(first)}; expected frames "
            'of one part of the Earth; set [input] align = true instead of "cover", or warp them'
        )
    middle = first.shape[1] / 2
    return min(reaches, key=lambda side: abs((side[1] + side[3]) / 2 - middle))
