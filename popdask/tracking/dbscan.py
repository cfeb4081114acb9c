"""Communities: connected, dense groups of cells of one class.

Ester, Kriegel, Sander and Xu (1996), "A density-based algorithm for discovering clusters in large
spatial databases with noise", KDD-96, on the rows and columns of a grid, class by class, frame by
frame. A cell with enough cells of its class within eps is a core; cores within eps of each other
are one community; any other cell within eps of a core is its border. Labels equal scikit-learn's.

On a grid the neighbours of a cell are the cells of a disc, and a disc is a stack of chords, one per
row. So nothing here looks for neighbours: a whole row is compared at once with itself moved to each
place of the disc; cells are handled as runs, and two runs on rows `d` apart are neighbours where
their columns come within the chord `d` of each other.

A chunk with a halo of 2 · eps knows every core within eps of it, so it groups them on its own.
Neighbouring chunks then see the same cores where their margins overlap: one small task per frame
joins the groups that share a core and numbers them, and every chunk draws its cells with the final
numbers. Where one cell is enough and only those that touch are in reach, communities are the
connected components of `popdask.blocks.components`.

Communities of too few people are weighed by the exact sums of :mod:`popdask.blocks.sums` and
dissolved; the others are numbered anew in their old order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Integral, Real
from typing import Any, NamedTuple

import dask.array as da
import numba
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from popdask.blocks.components import components, corners_of, flatten, union
from popdask.blocks.overlap import add_overlap, merge_thin_chunks
from popdask.blocks.sums import LabelSums, frames_of, people_by_label, sum_frames
from popdask.errors import InputError
from popdask.validate import check_array

PART = 256  # cells of a row that are counted together, or passed over where none has data


class Runs(NamedTuple):
    """Horizontal runs of cells of one class, sorted by class, row and column."""

    first: np.ndarray
    """First run of every line, and their number; a line is a class in a row, class · rows + row."""
    start: np.ndarray
    """First column of every run."""
    stop: np.ndarray
    """One past the last column of every run."""


def disk_half_widths(eps: float, shape: tuple[int, int]) -> np.ndarray:
    """Half-widths of the chords of the disc of radius `eps`, no larger than a frame of `shape`."""
    # Cells `(dr, dc)` apart are neighbours where ``dc <= chords[dr]``, which is dr² + dc² ≤ eps²,
    # the comparison that scikit-learn's tree makes.
    rows, columns = shape
    square = math.floor(min(float(eps) * float(eps), float(rows * rows + columns * columns)))
    depth = min(math.isqrt(square), max(rows - 1, 0))
    widest = max(columns - 1, 0)
    return np.array([min(math.isqrt(square - d * d), widest) for d in range(depth + 1)], np.int64)


@numba.njit(cache=True, nogil=True)
def find_cores(codes: np.ndarray, chord: np.ndarray, min_samples: int) -> np.ndarray:
    """Codes of the cells with `min_samples` cells of their class in their disc, 0 elsewhere."""
    # The codes are 1, 2, …, 0 = no data, with a margin of one disc that the result lacks.
    tall, wide = chord.size - 1, chord[0]
    rows, columns = codes.shape[0] - 2 * tall, codes.shape[1] - 2 * wide
    cores = np.zeros((rows, columns), codes.dtype)
    for row in range(rows):
        for left in range(0, columns, PART):
            own = codes[row + tall, wide + left : wide + min(left + PART, columns)]
            if own.any():
                around = codes[row : row + 2 * tall + 1, left : left + own.size + 2 * wide]
                counts = _count_alike(own, around, chord)
                for x in range(own.size):
                    if own[x] != 0 and counts[x] >= min_samples:
                        cores[row, left + x] = own[x]
    return cores


@numba.njit(cache=True, nogil=True)
def _count_alike(own: np.ndarray, around: np.ndarray, chord: np.ndarray) -> np.ndarray:
    """Count the cells of its class in the disc of every cell of a part of a row, with itself."""
    # A byte per cell counts 127 pairs, left and right of the middle, before it is emptied: a vector
    # holds that many more cells.
    tall, wide = chord.size - 1, chord[0]
    counts = np.zeros(own.size, np.int32)
    alike = np.zeros(own.size, np.uint8)
    pairs = 0
    for line in range(around.shape[0]):
        cells = around[line]
        middle = cells[wide:]
        for x in range(own.size):
            counts[x] += middle[x] == own[x]
        for d in range(1, chord[abs(line - tall)] + 1):
            before, after = cells[wide - d :], cells[wide + d :]
            for x in range(own.size):
                alike[x] += np.uint8(before[x] == own[x]) + np.uint8(after[x] == own[x])
            pairs += 1
            if pairs == 127:
                counts += alike
                alike[:] = 0
                pairs = 0
    return counts + alike


@numba.njit(cache=True, nogil=True)
def find_runs(codes: np.ndarray, classes: int, cuts: np.ndarray) -> Runs:
    """Runs of cells of one code other than 0; a new one begins at every column in `cuts`."""
    rows, columns = codes.shape
    first = np.zeros((classes + 1) * rows + 1, np.int64)
    for row in range(rows):
        before = 0
        for column in range(columns):
            code = codes[row, column]
            if code != 0 and (code != before or cuts[column]):
                first[code * rows + row + 1] += 1
            before = code
    for line in range((classes + 1) * rows):
        first[line + 1] += first[line]
    filled = first[:-1].copy()
    start = np.empty(first[-1], np.int32)
    stop = np.empty(first[-1], np.int32)
    for row in range(rows):
        before, run = 0, 0
        for column in range(columns):
            code = codes[row, column]
            if code != 0:
                if code != before or cuts[column]:
                    run = filled[code * rows + row]
                    filled[code * rows + row] += 1
                    start[run] = column
                stop[run] = column + 1
            before = code
    return Runs(first, start, stop)


@numba.njit(cache=True, nogil=True)
def join_runs(core: Runs, rows: int, chord: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group of every run of cores, and the first run of every group."""
    # Groups are numbered by their first run, that is by class, then by first cell.
    parent = np.arange(core.start.size, dtype=np.int32)
    for line in range(core.first.size - 1):
        for run in range(core.first[line] + 1, core.first[line + 1]):
            if core.start[run] - core.stop[run - 1] < chord[0]:
                union(parent, run - 1, run)
        for d in range(1, min(chord.size, rows - line % rows)):
            _join_rows(parent, core, line, line + d, chord[d])
    return flatten(parent)


@numba.njit(cache=True, nogil=True)
def _join_rows(parent: np.ndarray, core: Runs, upper: int, lower: int, reach: int) -> None:
    """Join the runs of two rows that come within `reach` columns of each other."""
    # The run that ends first is left behind although the next one of the other row may also be in
    # its reach: those two then are in reach of each other, and already joined along their own
    # row.
    a, b = core.first[upper], core.first[lower]
    while a < core.first[upper + 1] and b < core.first[lower + 1]:
        if core.start[b] - core.stop[a] < reach and core.start[a] - core.stop[b] < reach:
            union(parent, a, b)
        if core.stop[a] < core.stop[b]:
            a += 1
        else:
            b += 1


@numba.njit(cache=True, nogil=True)
def paint_labels(
    core: Runs, label: np.ndarray, border: Runs, shape: tuple[int, int], chord: np.ndarray
) -> np.ndarray:
    """Draw the labels of the runs of cores; a border cell gets the lowest label in its reach."""
    painted = np.full(shape, -1, np.int32)
    rows = shape[0]
    for line in range(core.first.size - 1):
        row = line % rows
        for run in range(core.first[line], core.first[line + 1]):
            painted[row, core.start[run] : core.stop[run]] = label[run]
        if border.first[line] < border.first[line + 1]:
            for d in range(max(1 - chord.size, -row), min(chord.size, rows - row)):
                if core.first[line + d] < core.first[line + d + 1]:
                    _reach_row(painted[row], border, line, core, line + d, label, chord[abs(d)])
    return painted


@numba.njit(cache=True, nogil=True)
def _reach_row(
    painted: np.ndarray,
    border: Runs,
    here: int,
    core: Runs,
    there: int,
    label: np.ndarray,
    reach: int,
) -> None:
    """Lower the labels of one row's border cells to those of another row's cores in reach."""
    lowest = painted.view(np.uint32)  # in which -1, not reached so far, is the highest number
    near, end = core.first[there], core.first[there + 1]
    for run in range(border.first[here], border.first[here + 1]):
        start, stop = border.start[run], border.stop[run]
        while near < end and core.stop[near] + reach <= start:
            near += 1
        other = near
        while other < end and core.start[other] - reach < stop:
            new = np.uint32(label[other])
            left, right = core.start[other] - reach, core.stop[other] + reach
            for column in range(max(start, left), min(stop, right)):
                lowest[column] = min(lowest[column], new)
            other += 1


@dataclass(frozen=True)
class _Place:
    """Where a chunk lies in its frame, in cells."""

    top: int
    left: int
    height: int
    width: int
    frame: tuple[int, int]
    """Height and width of the frame."""


class _Tile(NamedTuple):
    """A chunk taken apart into runs, which count from the corner of its margin of one eps."""

    place: _Place
    core: Runs
    """Cores, those in the margin too."""
    border: Runs
    """Cells of the chunk that are no cores: border or noise."""
    group: np.ndarray
    """Group of every run of cores, numbered from 0 in this chunk."""
    first: np.ndarray
    """First run of every group."""
    kinds: np.ndarray
    """The classes in the chunk, by which the runs are sorted."""


class _Message(NamedTuple):
    """What a chunk tells of its groups; a run goes by its first cell, row-major in the frame."""

    kind: np.ndarray
    """Class of every group."""
    first: np.ndarray
    """First core of every group."""
    own: np.ndarray
    """Runs of cores in this chunk that its neighbours may see."""
    own_group: np.ndarray
    seen: np.ndarray
    """Runs of cores seen in the neighbours."""
    seen_group: np.ndarray


def _encode(classes: np.ndarray, place: _Place, halo: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Classes as 1, 2, … and no data as 0, with all of the halo, and the classes they stand for."""
    classes = classes.reshape(classes.shape[-2:])
    kinds = np.unique(classes)
    kinds = kinds[kinds >= 0]
    codes = np.searchsorted(kinds, classes, side="right").astype(np.min_scalar_type(kinds.size))
    above, below = place.top == 0, place.top + place.height == place.frame[0]
    left, right = place.left == 0, place.left + place.width == place.frame[1]
    outside = np.multiply([[above, below], [left, right]], np.array(halo)[:, None])
    return np.pad(codes, outside), kinds


def _take_apart(classes: np.ndarray, place: _Place, chord: np.ndarray, min_samples: int) -> _Tile:
    """Group the cores of one chunk, given with as much of its halo as the frame has."""
    tall, wide = chord.size - 1, int(chord[0])
    codes, kinds = _encode(classes, place, (2 * tall, 2 * wide))
    cores = find_cores(codes, chord, min_samples)
    codes = codes[tall : codes.shape[0] - tall, wide : codes.shape[1] - wide]
    others = np.zeros_like(cores)
    chunk = np.s_[tall : tall + place.height, wide : wide + place.width]
    others[chunk] = codes[chunk] - cores[chunk]
    column = np.arange(codes.shape[1])
    cuts = (column == wide) | (column == wide + place.width)
    cuts |= wide == 0  # where eps < 1, even adjacent cells are apart
    core = find_runs(cores, kinds.size, cuts)
    border = find_runs(others, kinds.size, cuts)
    group, first = join_runs(core, cores.shape[0], chord)
    return _Tile(place, core, border, group, first, kinds)


def _announce(tile: _Tile, chord: np.ndarray) -> _Message:
    """Name the groups of a chunk, and the runs of cores by which they meet those of others."""
    tall, wide = chord.size - 1, int(chord[0])
    place, core = tile.place, tile.core
    line = np.repeat(np.arange(core.first.size - 1), np.diff(core.first))
    code, row = np.divmod(line, place.height + 2 * tall)
    cell = (place.top + row - tall) * place.frame[1] + place.left + core.start - wide
    own = (tall <= row) & (row < tall + place.height)
    own &= (wide <= core.start) & (core.start < wide + place.width)
    deep = (2 * tall <= row) & (row < place.height)
    deep &= (2 * wide <= core.start) & (core.stop <= place.width)
    return _Message(
        kind=tile.kinds[code[tile.first] - 1],
        first=cell[tile.first],
        own=cell[own & ~deep],
        own_group=tile.group[own & ~deep],
        seen=cell[~own],
        seen_group=tile.group[~own],
    )


def _number(messages: Sequence[_Message]) -> list[np.ndarray]:
    """Labels of the groups of every chunk of a frame."""
    counts = np.cumsum([0, *(message.kind.size for message in messages)])
    own_group = np.concatenate([m.own_group + n for m, n in zip(messages, counts, strict=False)])
    seen_group = np.concatenate([m.seen_group + n for m, n in zip(messages, counts, strict=False)])
    own = np.concatenate([message.own for message in messages])
    seen = np.concatenate([message.seen for message in messages])
    # A run seen from outside lies whole in one run of the chunk that owns it.
    order = np.argsort(own)
    same = own_group[order][np.searchsorted(own, seen, side="right", sorter=order) - 1]
    links = coo_array((np.ones(seen.size), (seen_group, same)), shape=(counts[-1], counts[-1]))
    community = connected_components(links, directed=False)[1]
    kind = np.concatenate([message.kind for message in messages])
    first = np.concatenate([message.first for message in messages])
    order = np.lexsort((first, kind))
    label = np.empty(counts[-1], np.int32)
    label[order] = pd.factorize(community[order])[0]  # numbered as they appear
    return np.split(label, counts[1:-1])


def _draw(
    tile: _Tile, labels: Sequence[np.ndarray], number: int, chord: np.ndarray, ndim: int
) -> np.ndarray:
    """Draw the communities of one chunk, from the labels of every chunk's groups."""
    tall, wide, place = chord.size - 1, int(chord[0]), tile.place
    shape = place.height + 2 * tall, place.width + 2 * wide
    drawn = paint_labels(tile.core, labels[number][tile.group], tile.border, shape, chord)
    drawn = drawn[tall : tall + place.height, wide : wide + place.width]
    return drawn.reshape((1,) * (ndim - 2) + drawn.shape)


def _places(rows: tuple[int, ...], columns: tuple[int, ...]) -> dict[tuple[int, ...], _Place]:
    """Place of every chunk of a frame, by its block number."""
    frame, sizes = (sum(rows), sum(columns)), product(rows, columns)
    blocks = np.ndindex(len(rows), len(columns))
    chunks = zip(blocks, corners_of((rows, columns)), sizes, strict=True)
    return {block: _Place(*corner, *size, frame) for block, corner, size in chunks}


def _label(classes: da.Array, eps: float, min_samples: int) -> da.Array:
    """Communities of classes (…, y, x), as a graph that grows with the number of chunks."""
    *times, height, width = classes.shape
    if min_samples == 1 and 1 <= eps < 2:  # every cell is a core: plain connected components
        corners = disk_half_widths(eps, (2, 2))[1] == 1
        return components(classes, 8 if corners else 4, least=0)
    chord = disk_half_widths(eps, (height, width))
    halo = 2 * (chord.size - 1), 2 * int(chord[0])
    frames = merge_thin_chunks(classes.rechunk(dict.fromkeys(range(len(times)), 1)), halo)
    padded = add_overlap(frames, halo)

    name = f"dbscan-{tokenize(classes.name, eps, min_samples)}"
    places = _places(*frames.chunks[-2:])
    graph: dict[Any, Any] = {}
    below: list[Any] = [padded]
    for frame in np.ndindex(*times):
        messages = [("announce-" + name, *frame, *block) for block in places]
        graph["number-" + name, *frame] = (_number, messages)
        for number, (block, place) in enumerate(places.items()):
            key = *frame, *block
            tile, labels = ("tile-" + name, *key), ("number-" + name, *frame)
            graph[tile] = (_take_apart, (padded.name, *key), place, chord, min_samples)
            graph["announce-" + name, *key] = (_announce, tile, chord)
            graph[name, *key] = (_draw, tile, labels, number, chord, classes.ndim)
    layers = HighLevelGraph.from_collections(name, graph, dependencies=below)
    return da.Array(layers, name, frames.chunks, dtype=np.int32).rechunk(classes.chunks)


def dbscan(classes: xr.DataArray, *, eps: float = 10, min_samples: int = 50) -> xr.DataArray:
    """Group the cells of every class into communities, frame by frame.

    A cell with at least `min_samples` cells of its own class within `eps`, itself counted, is a
    core. Cores of a class within `eps` of each other belong to one community, and so does every
    cell of the class within `eps` of one of its cores.

    Parameters
    ----------
    classes
        Class of every cell, integers with dimensions (…, y, x) in any order, for instance
        (time, y, x); −1, as anything negative, is no data and takes no part. Chunks may have any
        size; those smaller than 2 · `eps` are merged on the way.
    eps
        Reach in cells, which may be fractional: cells dr rows and dc columns apart are within reach
        where dr² + dc² ≤ eps².
    min_samples
        Least number of cells that makes a core.

    Returns
    -------
    xarray.DataArray
        `community`, int32, lazy, with the dimensions, coordinates and chunks of `classes`: 0, 1, …
        in every frame, −1 for noise and no data. Communities are numbered by class, then by their
        first core in row-major order; a border cell within reach of several belongs to the lowest.

    Raises
    ------
    InputError
        If `classes` are not integers or lack a dimension y or x, if `eps` is not a positive number
        or `min_samples` is not a positive integer.

    Notes
    -----
    Every class of every frame gets the labels of ``sklearn.cluster.DBSCAN`` on the rows and columns
    of its cells, raised by the number of communities of the classes before it. Method: Ester,
    Kriegel, Sander and Xu (1996), KDD-96, 226–231.

    Examples
    --------
    Two squares of class 7, too far apart to be one community:

    >>> import numpy as np, xarray as xr
    >>> classes = xr.DataArray(np.full((3, 8), -1), dims=("y", "x"))
    >>> classes[:2, :2] = classes[:2, 5:7] = 7
    >>> dbscan(classes, eps=1.5, min_samples=4).values
    array([[ 0,  0, -1, -1, -1,  1,  1, -1],
           [ 0,  0, -1, -1, -1,  1,  1, -1],
           [-1, -1, -1, -1, -1, -1, -1, -1]], dtype=int32)
    """
    _check(classes, eps, min_samples)
    ordered = classes.transpose(..., "y", "x")
    community = xr.DataArray(
        _label(ordered.chunk().data, float(eps), int(min_samples)),
        coords=ordered.coords,
        dims=ordered.dims,
        name="community",
        attrs={"long_name": "community of the cell, −1 = none", "units": "1"},
    )
    return community.transpose(*classes.dims)


def _check(classes: xr.DataArray, eps: float, min_samples: int) -> None:
    check_array("classes", classes, "y", "x", hint="kmeans makes them")
    if not np.issubdtype(classes.dtype, np.integer):
        raise InputError(
            f"classes are {classes.dtype}; expected integers with -1 for no data: "
            "use classes.fillna(-1).astype('int16')."
        )
    if not (isinstance(eps, Real) and 0 < eps < math.inf):
        raise InputError(
            f"eps is {eps!r}; expected a distance in cells above 0: give a number such as 10, or "
            "popdask.io.in_cells('2.5 km', population)."
        )
    if not (isinstance(min_samples, Integral) and min_samples >= 1):
        raise InputError(
            f"min_samples is {min_samples!r}; expected a number of cells, 1 or more: "
            "give an integer such as 50."
        )


def remove_small_communities(
    community: xr.DataArray, population: xr.DataArray, min_people: float
) -> xr.DataArray:
    """Dissolve the communities that have fewer people than a threshold."""
    if not min_people >= 0:
        raise InputError(f"min_people is {min_people}: give 0 people or more")
    _, (labels, people) = frames_of(community, population)
    labels = labels.rechunk({0: 1})
    data = da.blockwise(
        _relabel_block,
        "tyx",
        labels,
        "tyx",
        sum_frames(people_by_label, labels, people),
        "t",
        min_people=min_people,
        dtype=np.int32,
        meta=np.empty((0, 0, 0), np.int32),
    )
    ordered = community.transpose(..., "y", "x")
    result = ordered.copy(data=data if "time" in community.dims else data[0])
    return result.transpose(*community.dims)


def _relabel_block(labels: np.ndarray, tables: np.ndarray, min_people: float) -> np.ndarray:
    """Number anew, in their old order, the communities of a block that stay."""
    table: LabelSums = tables[0]
    stays = table.reals(0) >= min_people
    number = np.full(table.keys.max(initial=-1) + 2, -1, dtype=np.int32)
    number[table.keys[stays]] = np.arange(np.count_nonzero(stays), dtype=np.int32)
    return number[labels]  # −1 reads the last entry
