"""Connected components of a grid, exact under any chunking.

Two cells belong together where they carry the same code and share an edge (4, rook) or an edge or a
corner (8, queen). Cells are handled as horizontal runs (He, Chao and Suzuki 2008, "A run-based
two-scan labeling algorithm"): a union-find joins the runs of neighbouring rows, and only runs are
kept, so that a block whose components wait for those of other blocks takes little memory.

The trick across blocks is that the outermost rows and columns of the blocks say everything: one
small task per frame lays them side by side, joins what touches, adds up what the parts of a
component weigh, as exact integers, and numbers the components by their first cell, row-major.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import dask.array as da
import numba
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from popdask.blocks.sums import pair

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]


class Runs(NamedTuple):
    """The cells of a block as horizontal runs of one code, row by row."""

    first: Longs  # first run of every row, and their number, (rows + 1,)
    start: Ints  # first column of every run
    stop: Ints  # one past the last column of every run
    component: Ints
    """Component of every run within the block, numbered by its first cell."""
    roots: Ints  # first run of every component


class Edges(NamedTuple):
    """Components along the four sides of a block, -1 for none."""

    top: Ints
    bottom: Ints
    left: Ints
    right: Ints


@dataclass(frozen=True)
class Parts:
    """What a block says of its components, (components,) each."""

    first: Longs  # first cell, row-major in the frame
    code: NDArray  # what its cells carry
    sums: Longs  # integers to be added up, (columns, components)
    edges: Edges


@dataclass(frozen=True)
class Joined:
    """The components of a frame, numbered by code, then by first cell."""

    numbers: list[Ints]  # for every block the number of each of its components
    sums: Longs  # sums of every component, (columns, components)


@numba.njit(cache=True, nogil=True)
def find_runs(codes: NDArray, least: int) -> tuple[Longs, Ints, Ints]:
    """Runs of cells of one code, of at least `least`: first of every row, starts and stops."""
    rows, columns = codes.shape
    first = np.zeros(rows + 1, np.int64)
    for row in range(rows):
        line = codes[row]
        count = np.int64(columns > 0 and line[0] >= least)
        for x in range(1, columns):
            count += (line[x] >= least) & (line[x] != line[x - 1])
        first[row + 1] = first[row] + count
    # A bound is written at every cell and kept where a run begins or ends: no branch to mispredict.
    start, stop = np.empty(first[rows] + 1, np.int32), np.empty(first[rows] + 1, np.int32)
    for row in range(rows):
        a = b = first[row]
        if first[row + 1] == a:
            continue
        line = codes[row]
        inside = line[0] >= least
        start[a] = 0
        a += inside
        for x in range(1, columns):
            turn = line[x] != line[x - 1]
            stop[b] = x
            b += turn & inside
            inside = line[x] >= least
            start[a] = x
            a += turn & inside
        if inside:
            stop[b] = columns
    return first, start[:-1], stop[:-1]


@numba.njit(cache=True, nogil=True)
def join_runs(
    codes: NDArray, first: Longs, start: Ints, stop: Ints, corners: int
) -> tuple[Ints, Ints]:
    """Component of every run, and the first run of every component; `corners` is 1 for queen."""
    parent = np.arange(start.size).astype(np.int32)
    for row in range(1, first.size - 1):
        a, b = first[row - 1], first[row]
        end_a, end_b = first[row], first[row + 1]
        while a < end_a and b < end_b:
            touch = (start[b] < stop[a] + corners) & (start[a] < stop[b] + corners)
            if touch and codes[row - 1, start[a]] == codes[row, start[b]]:
                union(parent, a, b)
            # Of two that end together neither touches the other's next, but for a corner.
            if stop[a] < stop[b]:
                a += 1
            elif stop[b] < stop[a] or not corners:
                b += 1
            else:
                near = b + 1 < end_b and start[b + 1] == stop[a]
                if near and codes[row - 1, start[a]] == codes[row, start[b + 1]]:
                    union(parent, a, b + 1)
                a += 1
    return flatten(parent)


@numba.njit(cache=True, nogil=True)
def flatten(parent: Ints) -> tuple[Ints, Ints]:
    """Number the trees of a forest by their roots, the lowest of each."""
    component = np.empty(parent.size, np.int32)
    roots = np.empty(parent.size, np.int32)
    found = 0
    for run in range(parent.size):
        if parent[run] == run:
            roots[found] = run
            component[run] = found
            found += 1
        else:
            component[run] = component[parent[run]]
    return component, roots[:found].copy()


@numba.njit(cache=True, nogil=True)
def union(parent: Ints, a: int, b: int) -> None:
    """Join the trees of two runs; the lower root stays."""
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    while parent[b] != b:
        parent[b] = parent[parent[b]]
        b = parent[b]
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


def label_block(codes: NDArray, contiguity: int, least: int = 1) -> Runs:
    """Components of a block (rows, columns) of whole numbers or booleans."""
    codes = codes.view(np.uint8) if codes.dtype == bool else codes
    first, start, stop = find_runs(codes, least)
    component, roots = join_runs(codes, first, start, stop, int(contiguity == 8))
    return Runs(first, start, stop, component, roots)


@numba.njit(cache=True, nogil=True)
def paint(
    first: Longs, start: Ints, stop: Ints, component: Ints, label: Ints, columns: int
) -> Ints:
    """Draw the labels of the components, -1 elsewhere."""
    rows = first.size - 1
    painted = np.empty((rows, columns), np.int32)
    for row in range(rows):
        line = painted[row]
        done = 0
        for run in range(first[row], first[row + 1]):
            line[done : start[run]] = -1
            done = stop[run]
            line[start[run] : done] = label[component[run]]
        line[done:] = -1
    return painted


@numba.njit(cache=True, nogil=True)
def sum_people(
    people: NDArray[np.floating],
    first: Longs,
    start: Ints,
    stop: Ints,
    component: Ints,
    components: int,
) -> Longs:
    """People of every component as two words of fixed point, and its cells; NaN is 0."""
    sums = np.zeros((3, components), np.int64)
    for row in range(first.size - 1):
        for run in range(first[row], first[row + 1]):
            number = component[run]
            sums[2, number] += stop[run] - start[run]
            for x in range(start[run], stop[run]):
                if not np.isnan(people[row, x]):
                    coarse, fine = pair(people[row, x])
                    sums[0, number] += coarse
                    sums[1, number] += fine
    return sums


@numba.njit(cache=True, nogil=True)
def _edges(first: Longs, start: Ints, stop: Ints, component: Ints, columns: int) -> Ints:
    """Components along the top, bottom, left and right of a block, one after the other."""
    rows = first.size - 1
    sides = np.full(2 * (rows + columns), np.int32(-1))
    for side, row in ((0, 0), (columns, rows - 1)):
        for run in range(first[row], first[row + 1]):
            sides[side + start[run] : side + stop[run]] = component[run]
    for row in range(rows):
        if first[row] < first[row + 1]:
            if start[first[row]] == 0:
                sides[2 * columns + row] = component[first[row]]
            last = first[row + 1] - 1
            if stop[last] == columns:
                sides[2 * columns + rows + row] = component[last]
    return sides


def at_edge(runs: Runs, columns: int) -> NDArray[np.bool_]:
    """Which components of a block reach its sides, where others may join them."""
    there = np.zeros(runs.roots.size + 1, bool)
    there[_edges(*runs[:4], columns)] = True  # the last stands for none
    return there[:-1]


def keep_components(runs: Runs, keep: NDArray[np.bool_]) -> Runs:
    """The runs of some components, numbered as they were in order."""
    kept = keep[runs.component]
    before = np.concatenate([[0], np.cumsum(kept)])
    number = (np.cumsum(keep) - 1).astype(np.int32)
    start, stop, component = (part[kept] for part in runs[1:4])
    roots = before[runs.roots[keep]].astype(np.int32)
    return Runs(before[runs.first], start, stop, number[component], roots)


def describe_parts(
    runs: Runs, codes: NDArray, corner: tuple[int, int], width: int, sums: Longs
) -> Parts:
    """What others need to know of a block whose first cell is `corner` of a frame so wide."""
    rows, columns = codes.shape
    row = np.searchsorted(runs.first, runs.roots, side="right") - 1
    column = runs.start[runs.roots]
    sides = _edges(*runs[:4], columns)
    return Parts(
        first=(corner[0] + row) * np.int64(width) + corner[1] + column,
        code=codes[row, column].copy(),
        sums=sums,
        edges=Edges(*np.split(sides, np.cumsum([columns, columns, rows]))),
    )


def join_parts(parts: Sequence[Parts], blocks: tuple[int, int], contiguity: int) -> Joined:
    """Join the components of the blocks of a frame, given row by row, and number them."""
    counts = np.cumsum([0, *(part.first.size for part in parts)])
    code = np.concatenate([part.code for part in parts])
    touching = [np.empty((2, 0), np.int64)]
    for one, other in _seams(parts, counts, blocks):
        touching += _touching(one, other, code, contiguity)
    a, b = np.concatenate(touching, axis=1)
    links = coo_array((np.ones(a.size, np.int8), (a, b)), shape=(counts[-1], counts[-1]))
    found, component = connected_components(links, directed=False)
    # Numbered as they appear in the order of codes and first cells.
    order = np.lexsort((np.concatenate([part.first for part in parts]), code))
    appears = np.unique(component[order], return_index=True)[1]
    rank = np.empty(found, np.int32)
    rank[np.argsort(appears)] = np.arange(found, dtype=np.int32)
    number = rank[component]
    columns = parts[0].sums.shape[0]
    sums = np.zeros((columns, found), np.int64)
    for column, values in enumerate(np.concatenate([part.sums for part in parts], axis=1)):
        np.add.at(sums[column], number, values)
    return Joined(np.split(number, counts[1:-1]), sums)


def _seams(
    parts: Sequence[Parts], counts: NDArray, blocks: tuple[int, int]
) -> Iterator[tuple[NDArray, NDArray]]:
    """Pairs of lines of components that lie side by side across the seams of a frame."""
    down, across = blocks

    def line(side: str, numbers: range) -> Longs:
        pieces = [(getattr(parts[n].edges, side).astype(np.int64), counts[n]) for n in numbers]
        return np.concatenate([np.where(piece < 0, -1, piece + n) for piece, n in pieces])

    rows = [range(j * across, (j + 1) * across) for j in range(down)]
    columns = [range(i, down * across, across) for i in range(across)]
    for above, below in pairwise(rows):
        yield line("bottom", above), line("top", below)
    for left, right in pairwise(columns):
        yield line("right", left), line("left", right)


def _touching(a: NDArray, b: NDArray, code: NDArray, contiguity: int) -> list[NDArray]:
    """Pairs of components of one code that touch where one line lies beside another."""
    pairs = [(a, b), (a[1:], b[:-1]), (a[:-1], b[1:])][: 3 if contiguity == 8 else 1]
    touching = []
    for one, other in pairs:
        both = (one >= 0) & (other >= 0)
        both[both] = code[one[both]] == code[other[both]]
        touching.append(np.stack([one[both], other[both]]))
    return touching


def corners_of(chunks: tuple[tuple[int, ...], ...]) -> list[tuple[int, int]]:
    """First row and column of every block of a frame, row by row."""
    tops, lefts = (np.cumsum([0, *sizes[:-1]]).tolist() for sizes in chunks)
    return [(top, left) for top in tops for left in lefts]


def _label(codes: NDArray, corner: tuple[int, int], width: int, contiguity: int, least: int) -> Any:
    """Components of a block, and what the others need to know of them."""
    codes = codes.reshape(codes.shape[-2:])
    runs = label_block(codes, contiguity, least)
    none = np.empty((0, runs.roots.size), np.int64)
    return runs, describe_parts(runs, codes, corner, width, none)


def _draw(labelled: Any, joined: Joined, number: int, columns: int, ndim: int) -> Ints:
    runs: Runs = labelled[0]
    label = joined.numbers[number]
    painted = paint(runs.first, runs.start, runs.stop, runs.component, label, columns)
    return painted.reshape((1,) * (ndim - 2) + painted.shape)


def components(codes: da.Array, contiguity: int, least: int = 1) -> da.Array:
    """Number the connected components of every frame of an array."""
    frames = codes.rechunk(dict.fromkeys(range(codes.ndim - 2), 1))
    name = f"components-{tokenize(codes.name, contiguity, least)}"
    *times, down, across = frames.numblocks
    corners = corners_of(frames.chunks[-2:])
    graph: dict[Any, Any] = {}
    for frame in np.ndindex(*times):
        blocks = list(np.ndindex(down, across))
        parts = [("parts-" + name, *frame, *block) for block in blocks]
        graph["join-" + name, *frame] = (join_parts, parts, (down, across), contiguity)
        for number, block in enumerate(blocks):
            key, columns = (*frame, *block), frames.chunks[-1][block[1]]
            runs, joined = ("runs-" + name, *key), ("join-" + name, *frame)
            source = (frames.name, *key)
            graph[runs] = (_label, source, corners[number], codes.shape[-1], contiguity, least)
            graph["parts-" + name, *key] = (itemgetter(1), runs)
            graph[name, *key] = (_draw, runs, joined, number, columns, codes.ndim)
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[frames])
    return da.Array(layers, name, frames.chunks, dtype=np.int32).rechunk(codes.chunks)
