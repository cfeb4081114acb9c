"""How far one frame lies from the next: phase correlation, and frames moved by whole cells.

Where the frame after holds what the frame before holds, (dy, dx) cells further, the phases of their
cross spectrum are a plane, and its transform back is a peak at (dy, dx). Frames are compared as
log(1 + people), so that a capital does not outweigh a country. Phases count by the power they
carry, as noise fills those of smooth rasters; a Gaussian low-pass gives the peak a shape whose top
a parabola through logarithms finds between cells.

C. D. Kuglin and D. C. Hines, "The phase correlation image alignment method", Proc. Int. Conf.
Cybernetics and Society (1975).

The trick is that cross spectra of equal tiles add up (Welch's method): tiles lie on the grid's
origin, whatever the chunks are, so that the sum is the same to the bit, and memory is by the tile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from numbers import Integral
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np
import pandas as pd
import scipy.fft
import xarray as xr
from numpy.typing import NDArray

from popdask.blocks.sums import from_fixed, sum_frames, to_fixed
from popdask.errors import InputError
from popdask.io.conventions import check_population
from popdask.validate import check_array

TILE = 256  # cells: shifts up to a quarter of it are found
BLOCK = 4 * TILE  # what one task reads
FLOOR = 1.0  # power below this share of the mean counts for less
WIDTH = 0.8  # cells, the standard deviation of the peak
LEAST_SHIFT = 0.5  # cells, of a whole shift
LEAST_PART = 0.1  # cells, of a part of one; from 0.15 on told on all grids that were tried
AGREED = 0.15  # part of the sloping cells by which more must change as a part of a cell says
LEAST_RISE = 0.01  # of the peak above the correlation at rest
SURE = 16.0  # noises of the surface that it must rise by; 14 were seen where all is noise

_NEIGHBOURS = slice(None, -1), slice(1, None)  # the earlier and the later frames of pairs

Spectrum = NDArray[np.complexfloating]


class ShiftedFrame(NamedTuple):
    """A frame that was moved, and whom that cost.

    Examples
    --------
    >>> frame = ShiftedFrame(xr.DataArray([[0.0, 5.0]], dims=("y", "x")), left=2.0)
    >>> frame.left
    2.0
    """

    population: xr.DataArray
    """People per cell (y, x), lazy; NaN where nothing is known of what moved in."""
    left: float
    """People who lie beyond the grid now."""


def displacement(population: xr.DataArray) -> pd.DataFrame:
    """Measure by how many cells every frame lies away from the one before it.

    Eager: one pass over the cells, and another over frames that seem to lie apart.

    Parameters
    ----------
    population : DataArray of float, (time, y, x)
        People per cell, NumPy or Dask; NaN (no data) is read as nobody.

    Returns
    -------
    pandas.DataFrame
        One row per pair of successive frames: ``time`` and ``next``; ``dy`` and ``dx`` (cells by
        which the next lies further down and to the right, NaN where one of them is empty);
        ``response`` (the share of the frames' common power that agrees on this shift, 0 to 1);
        ``suspicious`` (a tenth of a cell or more, better than no shift beyond what chance does, and
        more cells fit it than do not: otherwise some towns have moved, not the frame); ``part``
        (suspicious, but as a part of a cell, which moving by whole cells does not mend).

    Raises
    ------
    InputError
        If `population` does not have these dimensions, or holds no counts of people.

    See Also
    --------
    shift_frame : moves a frame by whole cells.

    Notes
    -----
    The result is the same to the bit in any chunks. Shifts of up to 64 cells are found; of whole
    cells to 0.01 cells on census grids, to 0.2 where a smooth raster is full of noise.

    References
    ----------
    C. D. Kuglin and D. C. Hines, "The phase correlation image alignment method", Proc. Int. Conf.
    Cybernetics and Society (1975).

    Examples
    --------
    A frame whose content lies 4 cells west of that of the frame before:

    >>> rng = np.random.default_rng(0)
    >>> people = rng.poisson(rng.gamma(0.1, 100.0, (64, 64))).astype("float32")
    >>> frames = np.stack([people, np.roll(people, -4, axis=1)])
    >>> population = xr.DataArray(frames, dims=("time", "y", "x"), coords={"time": [2001, 2002]})
    >>> displacement(population).round(1)[["time", "next", "dx", "suspicious"]]
       time  next   dx  suspicious
    0  2001  2002 -4.0        True
    """
    population = check_population("population", population, "time", "y", "x")
    cube = population.transpose("time", "y", "x")
    times = cube["time"].to_numpy()
    peaks = np.empty((0, 10))
    if len(times) > 1:
        frames = da.asarray(cube.data).rechunk((1, BLOCK, BLOCK))
        finish = partial(_peak, shape=frames.shape[1:])
        # Each frame is transformed once, and met by the one before and the one after.
        spectra = da.map_blocks(_spectra, frames, dtype=object, meta=np.empty((0, 0, 0), object))
        pairs = [array.blocks[pick] for array in (frames, spectra) for pick in _NEIGHBOURS]
        crossed = sum_frames(_cross_spectrum, *pairs, add=_summed, finish=finish)
        peaks = np.array(crossed.compute().tolist())
    dy, dx, response, at_rest, noise, top, *votes = peaks.T
    least, far = np.maximum(LEAST_RISE, SURE * noise), np.hypot(dy, dx)
    whole = (far >= LEAST_SHIFT) & (response - at_rest >= least)
    part = ~whole & (far >= LEAST_PART) & (far < 1) & (top - at_rest >= LEAST_RISE)
    agreed = _agreed(cube, dy, dx, whole)
    in_part = part & _agreed_in_part(dy, dx, votes)
    in_part |= agreed & (np.rint(dy) == 0) & (np.rint(dx) == 0)
    places = {"time": times[:-1], "next": times[1:], "dy": dy, "dx": dx, "response": response}
    return pd.DataFrame({**places, "suspicious": agreed | in_part, "part": in_part})


def shift_frame(population: xr.DataArray, *, dy: int = 0, dx: int = 0) -> ShiftedFrame:
    """Move what a frame holds by whole cells.

    Parameters
    ----------
    population : DataArray of float, (y, x)
        People per cell, NaN = no data.
    dy, dx : int, optional
        Cells to move, down the rows and to the right; negative ones move up and left.

    Returns
    -------
    ShiftedFrame
        `population`, lazy, on the same grid, NaN where nothing is known of what moved in; and
        `left`, the people who lie beyond the grid now: theirs and those of the moved frame add up
        to those of the frame given.

    Raises
    ------
    InputError
        If `population` does not have these dimensions, or a shift is not whole or not smaller
        than the grid.

    See Also
    --------
    displacement : finds such shifts.

    Examples
    --------
    >>> people = xr.DataArray([[1.0, 2.0, 3.0]], dims=("y", "x"))
    >>> moved = shift_frame(people, dx=1)
    >>> moved.population.values, moved.left
    (array([[nan,  1.,  2.]]), 3.0)
    """
    check_array("population", population, "y", "x")
    for axis, cells in (("y", dy), ("x", dx)):
        if not isinstance(cells, Integral) or abs(cells) >= population.sizes[axis]:
            raise InputError(
                f"d{axis} is {cells!r}; expected whole cells, fewer than the "
                f"{population.sizes[axis]} of the grid; round the shift"
            )
    moved = population.shift(y=int(dy), x=int(dx), fill_value=np.nan)
    if population.chunks:
        moved = moved.chunk(population.chunksizes)
    rows, columns = _leaving(population.sizes["y"], dy), _leaving(population.sizes["x"], dx)
    corners = rows, _others(population.sizes["y"], dy)
    strips = population.isel(y=corners[0]), population.isel(y=corners[1], x=columns)
    return ShiftedFrame(moved, sum(_people(strip) for strip in strips))


def _leaving(size: int, cells: int) -> slice:
    """Select the cells of an axis that a shift takes beyond its end."""
    return slice(size - cells, size) if cells > 0 else slice(0, -cells)


def _others(size: int, cells: int) -> slice:
    """Select the cells of an axis that a shift leaves on it."""
    return slice(0, size - cells) if cells > 0 else slice(-cells, size)


def _people(cells: xr.DataArray) -> float:
    """Add up people exactly, whatever the chunks."""
    if not cells.size:
        return 0.0
    frame = da.asarray(cells.transpose("y", "x").data)[None]
    (total,) = sum_frames(_words, frame, add=sum, finish=lambda total: from_fixed(*total)).compute()
    return float(total)


def _words(people: NDArray) -> NDArray[np.int64]:
    return np.array([part.sum() for part in to_fixed(people)])


def _summed(parts: list[tuple[Spectrum | None, NDArray]]) -> tuple[Spectrum | None, NDArray]:
    """Add up what blocks told."""
    spectra, votes = zip(*parts, strict=True)
    return _added(list(spectra)), np.sum(votes, axis=0)


def _added(spectra: list[Spectrum | None]) -> Spectrum | None:
    """Add up what tiles told; None where nobody lives."""
    known = [spectrum for spectrum in spectra if spectrum is not None]
    return np.sum(known, axis=0) if known else None


def _cross_spectrum(
    before: NDArray,
    after: NDArray,
    spectra_before: list[Spectrum | None],
    spectra_after: list[Spectrum | None],
) -> tuple[Spectrum | None, NDArray]:
    """Sum the cross spectra of the tiles of a block (1, y, x) of two frames, and its votes."""
    crossed: list[Spectrum | None] = [
        np.conj(first).astype(np.complex128) * second
        for first, second in zip(spectra_before, spectra_after, strict=True)
        if first is not None and second is not None
    ]
    return _added(crossed), _votes(before, after)


def _spectra(frame: NDArray, block_id: Sequence[int] = (0, 0, 0)) -> list[Spectrum | None]:
    """Transform the tiles of a block (1, y, x); None where nobody lives."""
    rows, columns = (
        _tiles(size, block) for size, block in zip(frame.shape[1:], block_id[1:], strict=True)
    )
    tiles = (np.nan_to_num(frame[0][tile]) for tile in product(rows, columns))
    return [_spectrum(people) if people.any() else None for people in tiles]


def _tiles(size: int, block: int) -> list[slice]:
    """Cut an axis of a block; a narrow strip at the raster's end would pull shifts towards 0."""
    starts = range(0, size, TILE)
    least = TILE // 4
    return [
        slice(start, start + TILE)
        for start in starts
        if size - start >= least or (start == 0 and block == 0)
    ]


def _spectrum(tile: NDArray) -> Spectrum:
    """Transform a tile of people, faded out towards its borders."""
    rows, columns = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in tile.shape)
    window = np.outer(rows, columns)
    levels = np.log1p(np.maximum(tile, 0, dtype=np.float64))
    levels = (levels - np.average(levels, weights=window)) * window
    found: Spectrum = scipy.fft.rfft2(levels.astype(np.float32), s=(TILE, TILE))
    return found


def _peak(transform: tuple[Spectrum | None, NDArray], shape: Sequence[int]) -> tuple[float, ...]:
    """Find the shift (dy, dx), the correlation there, at rest, noise, that between cells; votes."""
    spectrum, votes = transform
    if spectrum is None or not spectrum.any():  # as of a single cell
        return np.nan, np.nan, 0.0, 0.0, 0.0, 0.0, *votes
    down, right = scipy.fft.fftfreq(TILE)[:, None], scipy.fft.rfftfreq(TILE)
    low = np.exp(-2 * (np.pi * WIDTH) ** 2 * (down**2 + right**2))
    power = np.abs(spectrum)
    weight = low / (power + FLOOR * power.mean())
    surface = scipy.fft.irfft2(spectrum * weight, s=(TILE, TILE))
    surface /= scipy.fft.irfft2(power * weight, s=(TILE, TILE))[0, 0]
    row, column = np.unravel_index(surface.argmax(), surface.shape)
    lines = (row, surface[:, column]), (column, surface[row])
    tops = [_vertex(line[[place - 1, place, (place + 1) % TILE]]) for place, line in lines]
    dy, dx = (
        (place + beside + TILE / 2) % TILE - TILE / 2
        for (place, _), (beside, _) in zip(lines, tops, strict=True)
    )
    best, at_rest = surface[row, column], surface[0, 0]
    top = best * np.exp(sum(rise for _, rise in tops))
    found = dy, dx, best, at_rest, _noise(surface, shape), top, *votes
    return tuple(map(float, found))


def _noise(surface: NDArray, shape: Sequence[int]) -> float:
    """Estimate the standard deviation of the correlation where no shift is meant, by the median."""
    rows, columns = (
        np.arange(-(min(size, TILE) // 2), (min(size, TILE) + 1) // 2) for size in shape
    )
    return float(np.median(np.abs(surface[np.ix_(rows, columns)])) / 0.6745)


def _vertex(values: NDArray) -> tuple[float, float]:
    """Place the top of a Gaussian through three neighbours from the middle one: aside, and up."""
    left, middle, right = np.log(np.maximum(values, 1e-6 * values[1]))
    bend = left - 2 * middle + right
    aside = float((left - right) / (2 * bend)) if bend else 0.0
    return aside, float((right - left) * aside / 4)


def _agreed(
    cube: xr.DataArray, dy: NDArray, dx: NDArray, suspicious: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Keep those shifts that more cells fit than not: a few large towns may move by themselves."""
    whole = {i: (round(dy[i]), round(dx[i])) for i in np.flatnonzero(suspicious).tolist()}
    votes = []
    for i, (down, right) in whole.items():
        before, after = (xr.ufuncs.log1p(cube[j].clip(0).astype(np.float64)) for j in (i, i + 1))
        before = before.drop_vars("time", errors="ignore")
        at_rest, moved = abs(after - before), abs(after - before.shift(y=down, x=right))
        votes.append((moved < at_rest).sum().data - (moved > at_rest).sum().data)
    found = suspicious.copy()
    for (i, shift), votes_for in zip(whole.items(), dask.compute(*votes), strict=True):
        found[i] = votes_for > 0 or not any(shift)  # less than half a cell each way: no whole shift
    return found


def _agreed_in_part(dy: NDArray, dx: NDArray, votes: Sequence[NDArray]) -> NDArray[np.bool_]:
    """Tell by which shifts most cells change as the slope along their longer side says."""
    down, right, cells_down, cells_right = votes
    along = np.abs(dx) > np.abs(dy)
    balance = np.where(along, np.sign(dx) * right, np.sign(dy) * down)
    cells = np.where(along, cells_right, cells_down)
    found: NDArray[np.bool_] = balance > np.maximum(AGREED * cells, SURE * np.sqrt(cells) / 4)
    return found  # of chance it is √cells


def _votes(before: NDArray, after: NDArray) -> NDArray[np.float64]:
    """Count the cells that change as if all lay further down, and to the right, less the others."""
    first, second = (np.maximum(np.nan_to_num(f[0]), 0.0) for f in (before, after))
    # by the cells beside it alone: a cell's own noise must not speak for its change
    change = np.sign(second - first)
    slopes = np.sign(first[:-2] - first[2:]), np.sign(first[:, :-2] - first[:, 2:])
    sides = slopes[0] * change[1:-1], slopes[1] * change[:, 1:-1]
    # Cells that stay as they are speak against a shift: a few places may move by themselves.
    return np.array([*(side.sum() for side in sides), *(np.abs(side).sum() for side in slopes)])


def move_frames(
    source: xr.Dataset, moves: Mapping[str, tuple[int, int]]
) -> tuple[xr.Dataset, dict[str, float]]:
    """Move frames by whole cells."""
    population, left = source["population"], {}
    frames = [population.isel(time=slice(i, i + 1)) for i in range(population.sizes["time"])]
    times = population["time"].values.astype("datetime64[s]").astype(str).tolist()
    for time, (dy, dx) in moves.items():
        position = times.index(time)
        moved, left[time] = shift_frame(frames[position].isel(time=0), dy=dy, dx=dx)
        frames[position] = moved.expand_dims("time").transpose(*population.dims)
    return source.assign(population=xr.concat(frames, "time").chunk(population.chunksizes)), left
