"""Labelled cells as one dataset, with one split for every model.

88,869 cells are 88,869 small files as images, and some 1,400 chunks as Zarr. A folder of images
names each ``<running>_<size>_<north>_<east>_<people>.jpg``, as in
``005859_100m_61397_6775_0.jpg``; north and east are the cell's lower-left corner in units of its
size. Larger cells are n × n images side by side, their people added.

A split is stored with the cells, so that no two models can have been trained on different ones.
Blocks keep the two sides apart on the ground: whole squares of the grid are drawn for validation,
and training cells that come too near to one of their cells are on neither side. Whatever is chosen
by looking at some cells (the epoch, the rate, a rule) is better on them than elsewhere, so a part
of the training cells is set aside to choose by, and the cells that are scored are seen by nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from popdask.errors import InputError
from popdask.imagery.grid import CellGrid, as_grid, crs_text, z_order
from popdask.io.cube import open_group, write_group
from popdask.io.paths import Path_, atomic_path, compute_to_end

CHUNK_CELLS = 64  # a square of 8 × 8 in Z-order
CHUNK_BYTES = 2**27
IMAGE = ("cell", "band", "row", "col")


def make_cells(
    images: da.Array,
    people: NDArray[np.floating],
    north: NDArray[np.int64],
    east: NDArray[np.int64],
    grid: CellGrid,
    *,
    context: int = 0,
    nodata: Any = 0,
    covered: da.Array | None = None,
) -> xr.Dataset:
    """Put cells together from their arrays."""
    cells = xr.Dataset(
        {
            "images": (IMAGE, images, {"long_name": "image"}),
            "people": ("cell", people, {"units": "people per cell", "long_name": "population"}),
        },
        coords={"north": ("cell", north), "east": ("cell", east)},
        attrs={
            "cell_size": grid.size,
            "resolution": grid.size * (2 * context + 1) / images.shape[-1],
            "context": context,
            "origin": list(grid.origin),
            "nodata": str(nodata),
        },
    )
    cells["people"] = cells["people"].astype("float64")
    if covered is not None:
        cells["covered"] = ("cell", covered, {"long_name": "share of pixels with data"})
    return cells.rio.write_crs(grid.crs)


def cells_grid(cells: xr.Dataset) -> CellGrid:
    """Return the grid that cells belong to."""
    x, y = cells.attrs["origin"]
    crs = crs_text(cells["spatial_ref"].attrs["crs_wkt"])
    return CellGrid(float(cells.attrs["cell_size"]), crs, (float(x), float(y)))


def cell_codes(cells: xr.Dataset) -> list[str]:
    """Return the code of each cell."""
    grid, corners = cells_grid(cells), (cells["north"].values, cells["east"].values)
    return [grid.code(*corner) for corner in zip(*corners, strict=True)]


def cells_nodata(cells: xr.Dataset) -> Any:
    """Give what pixels without data hold, in the dtype of the images."""
    return cells["images"].dtype.type(float(cells.attrs["nodata"]))


def write_cells(cells: xr.Dataset, path: Path_) -> None:
    """Write cells as Zarr, whole or not at all."""
    # A chunk holds 64 cells, or fewer where that is more than 128 MiB.
    if not cells.sizes["cell"]:
        raise InputError("there is no cell to write; expected at least one; check what chose them")
    each = int(np.prod(cells["images"].shape[1:])) * cells["images"].dtype.itemsize
    step = max(1, min(CHUNK_CELLS, CHUNK_BYTES // each))
    stored = cells.chunk({"cell": step, "band": -1, "row": -1, "col": -1})
    for name in stored.variables:
        stored[name].encoding = {}
        if stored[name].dims == ("cell",):
            stored[name] = stored[name].chunk({"cell": cells.sizes["cell"]})
    write_group(stored, path, "the cells")


def open_cells(path: Path_) -> xr.Dataset:
    """Open cells stored as Zarr."""
    stored = open_group(path, "cells that popdask wrote")
    if "images" not in stored or stored["images"].dims != IMAGE or "people" not in stored:
        found = {str(name): array.dims for name, array in stored.data_vars.items()}
        raise InputError(
            f"{path} holds {found}; expected images (cell, band, row, col) and people (cell); "
            "write it with write_cells"
        )
    return load_tables(stored)


def load_tables(cells: xr.Dataset) -> xr.Dataset:
    """Load what goes by cell alone; the images stay lazy."""
    tables = [name for name, array in cells.variables.items() if array.dims == ("cell",)]
    return cells.assign({name: cells[name].compute() for name in tables})


def coarsen_cells(cells: xr.Dataset, n: int = 3) -> xr.Dataset:
    """Join n × n cells into one, adding their people.

    Parameters
    ----------
    cells : Dataset
        Cells without context.
    n : int, optional
        Cells per side; 3 makes cells of 300 m from those of 100 m, aligned with the grid's origin.

    Returns
    -------
    Dataset
        Lazy, as `cut_cells` gives it on the grid of n times the size: where one of the n × n cells
        is missing there is no cell; where the people of one are unknown, so are theirs. Of other
        variables by cell, only ``covered`` is kept.

    Raises
    ------
    InputError
        If the cells have context, or no n × n of them are there.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> from popdask.imagery.grid import CellGrid
    >>> from popdask.imagery.cutting import cut_cells
    >>> image = xr_zeros(CellGrid(100).geobox(range(6), range(4), pixels=20), "uint8")
    >>> dict(coarsen_cells(cut_cells(image), 3).images.sizes)
    {'cell': 2, 'band': 1, 'row': 60, 'col': 60}
    """
    if cells.attrs["context"]:
        raise InputError(
            f"the cells have a context of {cells.attrs['context']}; expected none, because rings "
            "do not join; cut them with context=0, or cut the larger cells from the mosaic"
        )
    north, east, members = _complete(cells["north"].values, cells["east"].values, n)
    if not len(north):
        raise InputError(
            f"the {cells.sizes['cell']} cells hold no {n} × {n} of which all are there; expected "
            "at least one; join cells before choosing among them"
        )
    order = members.ravel()
    step = max(1, CHUNK_CELLS // n**2) * n**2
    images = da.asarray(cells["images"].data)[order].rechunk((step, -1, -1, -1))
    sides = tuple(n * size for size in images.shape[2:])
    counts = tuple(size // n**2 for size in images.chunks[0])
    chunks = (counts, images.chunks[1], *((side,) for side in sides))
    joined = images.map_blocks(_join_block, n, chunks=chunks, dtype=images.dtype)
    covered = None
    if "covered" in cells:
        covered = da.asarray(cells["covered"].data)[order].reshape(members.shape).mean(1)
    return make_cells(
        joined,
        cells["people"].values[members].sum(1),
        north,
        east,
        cells_grid(cells).joined(n),
        nodata=cells_nodata(cells),
        covered=covered,
    )


def _complete(
    north: NDArray[np.int64], east: NDArray[np.int64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find the cells of n times the size whose members are all there, in Z-order."""
    # Gives north and east (m,) and the members' indices (m, n²), row by row from the north-west.
    corners, which = np.unique(np.stack([north, east]) // n, axis=1, return_inverse=True)
    members = np.full((corners.shape[1], n * n), -1)
    members[which.ravel(), (n - 1 - north % n) * n + east % n] = np.arange(len(north))
    there = (members >= 0).all(1)
    (north, east), members = corners[:, there], members[there]
    order = z_order(north, east)
    return north[order], east[order], members[order]


def _join_block(images: NDArray, n: int) -> NDArray:
    """Put n² images after one another (m · n², band, row, col) together (m, band, n·row, n·col)."""
    band, row, col = images.shape[1:]
    parts = images.reshape(-1, n, n, band, row, col).transpose(0, 3, 1, 4, 2, 5)
    return parts.reshape(-1, band, n * row, n * col)


SHOWN = 5

_NAME = re.compile(
    r"(?P<running>\d+)_(?P<size>[\d.]+[a-z]+)_(?P<north>-?\d+)_(?P<east>-?\d+)"
    r"_(?P<people>\d+(\.\d+)?)\.(jpe?g|png)",
    re.IGNORECASE,
)


def list_folder(folder: Path_, grid: CellGrid | str = "dk_100m") -> tuple[pd.DataFrame, list[str]]:
    """Read the file names of a folder of cells."""
    place, known_grid = Path(folder), as_grid(grid)
    if not place.is_dir():
        raise InputError(f"{folder} is no folder; expected one with images of cells; correct it")
    rows, others = [], []
    for entry in os.scandir(place):
        if entry.name.startswith("."):
            continue
        name = _NAME.fullmatch(entry.name)
        if name is None or name["size"].lower() != known_grid.label:
            others.append(entry.name)
            continue
        rows.append((entry.path, int(name["north"]), int(name["east"]), float(name["people"])))
    cells = pd.DataFrame(sorted(rows), columns=["path", "north", "east", "people"])
    order = z_order(cells["north"].to_numpy(np.int64), cells["east"].to_numpy(np.int64))
    return cells.iloc[order].reset_index(drop=True), sorted(others)


def read_cells(
    folder: Path_, grid: CellGrid | str = "dk_100m", *, skip: bool = False
) -> xr.Dataset:
    """Read a folder of cells, lazily.

    Parameters
    ----------
    folder : path
        With files such as ``005859_100m_61397_6775_0.jpg``, JPEG or PNG, all of one shape.
    grid : CellGrid or str, optional
        The grid of the cells, or the name of a preset.
    skip : bool, optional
        Pass over files whose names do not parse; how many is in the attribute ``skipped``, which
        they are says `list_folder`.

    Returns
    -------
    Dataset
        As `cut_cells` gives it, without ``covered``, 64 cells a chunk. Write it with `write_cells`
        before training, so that the small files are opened once.

    Raises
    ------
    InputError
        If there is no such folder or no cell in it, a name does not parse (without `skip`), a cell
        is there twice; and, when computed, if a file cannot be read or has another shape.

    Examples
    --------
    >>> import tempfile
    >>> import dask.array as da
    >>> images = da.full((1, 1, 8, 8), 90, dtype="uint8")
    >>> one = np.array([61397]), np.array([6775])
    >>> with tempfile.TemporaryDirectory() as place:
    ...     write_folder(make_cells(images, np.ones(1), *one, CellGrid(100)), f"{place}/cells")
    ...     cells = read_cells(f"{place}/cells")
    ...     int(cells.images.mean()), cells.people.values
    (90, array([1.]))
    """
    table, others = list_folder(folder, grid)
    known_grid = as_grid(grid)
    if others and not skip:
        shown = ", ".join(others[:SHOWN]) + (", …" if len(others) > SHOWN else "")
        raise InputError(
            f"{folder} holds {len(others)} files that are not named as cells of {known_grid.label} "
            f"({shown}); expected names such as 005859_{known_grid.code(61397, 6775)}_0.jpg; pass "
            "skip=True to pass over them"
        )
    if table.empty:
        raise InputError(f"{folder} holds no cell of {known_grid.label}; expected images of cells")
    twice = table.duplicated(["north", "east"])
    if twice.any():
        raise InputError(
            f"{folder} holds {int(twice.sum())} cells twice, among them "
            f"{Path(table['path'][twice].iloc[0]).name}; expected one file for each cell; remove "
            "all but one"
        )
    people, north, east = (table[name].to_numpy() for name in ("people", "north", "east"))
    cells = make_cells(_lazy_images(table["path"].tolist()), people, north, east, known_grid)
    cells.attrs["skipped"] = len(others)
    return cells


def write_folder(cells: xr.Dataset, folder: Path_, *, quality: int = 95) -> None:
    """Write cells as a folder of JPEG files, whole or not at all."""
    target = Path(folder)
    if target.exists():
        raise InputError(f"{folder} exists; expected a new folder; remove or rename it")
    names = _names(cells)
    images = da.asarray(cells["images"].data)
    images = images.rechunk((images.chunks[0], -1, -1, -1))
    ends = np.cumsum((0, *images.chunks[0]))
    with atomic_path(target, new=True) as part:
        part.mkdir()
        write = dask.delayed(_write_images, pure=False)
        blocks = images.to_delayed().ravel()
        compute_to_end(
            *(
                write(block, names[start:stop], str(part), quality)
                for block, start, stop in zip(blocks, ends[:-1], ends[1:], strict=True)
            )
        )


def _lazy_images(paths: Sequence[str]) -> da.Array:
    shape = _read_image(paths[0]).shape
    ends = [*range(0, len(paths), CHUNK_CELLS), len(paths)]
    chunks = (tuple(np.diff(ends).tolist()), *((size,) for size in shape))
    stamps = [Path(path).stat().st_mtime_ns for path in paths]
    return da.map_blocks(
        _read_images,
        da.from_array(np.array(paths, object), chunks=CHUNK_CELLS)[:, None, None, None],
        form=shape,
        dtype="uint8",
        chunks=chunks,
        meta=np.empty((0, 0, 0, 0), "uint8"),
        name=f"folder-{tokenize(list(paths), stamps)}",
    )


def _read_images(paths: NDArray, form: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Read images (n, band, row, col)."""
    images = np.empty((len(paths), *form), np.uint8)
    for place, path in zip(images, paths.ravel(), strict=True):
        image = _read_image(path)
        if image.shape != form:
            raise InputError(
                f"{path} has {image.shape} bands, rows and columns, others {form}; expected one "
                "shape for all cells; resize or remove it"
            )
        place[:] = image
    return images


def _read_image(path: str) -> NDArray[np.uint8]:
    """Read an image (band, row, col)."""
    try:
        with Image.open(path) as file:
            mode, values = file.mode, np.asarray(file)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); expected an image; remove it") from None
    if mode not in ("L", "RGB"):
        raise InputError(
            f"{path} has pixels of the kind {mode}; expected grey, or red, green and "
            "blue, of 8 bits; convert it"
        )
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def _names(cells: xr.Dataset) -> list[str]:
    """Name the files of cells that can be written."""
    images, grid = cells["images"], cells_grid(cells)
    people = cells["people"].values
    bands = images.sizes["band"]
    if images.dtype != np.uint8 or bands not in (1, 3) or cells.attrs["context"]:
        raise InputError(
            f"the cells have {bands} bands of {images.dtype} and a context of "
            f"{cells.attrs['context']}; expected one or three bands of uint8 without context, as "
            "JPEG has them; write them as Zarr with write_cells"
        )
    if np.isnan(people).any():
        raise InputError(
            f"{int(np.isnan(people).sum())} cells have unknown people; expected a count for each, "
            "as it stands in the file's name; cut with labelled=True"
        )
    places = zip(cells["north"].values, cells["east"].values, people, strict=True)
    return [f"{i:06d}_{grid.code(n, e)}_{_text(p)}.jpg" for i, (n, e, p) in enumerate(places)]


def _text(people: float) -> str:
    return (
        str(int(people)) if float(people).is_integer() else f"{people:.6f}".rstrip("0").rstrip(".")
    )


def _write_images(images: NDArray, names: Sequence[str], folder: str, quality: int) -> None:
    for image, name in zip(images, names, strict=True):
        pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        Image.fromarray(pixels).save(Path(folder, name), quality=quality)


SELECTION = 2


def set_aside(cells: xr.Dataset, share: float = 0.2) -> xr.Dataset:
    """Set a part of the training cells aside, to choose epochs, rates and rules by."""
    if not 0 <= share < 1:
        raise InputError(
            f"the share of training cells to choose by is {share}; expected 0 or more and less "
            "than 1, such as 0.2; correct it"
        )
    if "split" not in cells.coords:
        raise InputError("the cells have no split; expected one; make it with split_cells")
    if share == 0:
        return cells
    split, attrs = cells["split"].values.copy(), dict(cells["split"].attrs)
    learned = np.flatnonzero(split == TRAINING)
    seed = int(attrs.get("seed", 0))
    side = max(1, int(attrs.get("block", 2)) // 2)
    groups = draw_groups(cells.isel(cell=learned), attrs.get("kind", "random"), side, seed)
    split[learned[np.isin(groups, draw(groups, share * len(learned), seed))]] = SELECTION
    return cells.assign_coords(split=("cell", split, {**attrs, "selection": share}))


TRAINING, VALIDATION, NEITHER = 0, 1, -1
Kind = Literal["random", "blocks"]
COSTLY = 1 / 3  # share of the training cells that a gap may cost without a warning


class GapWarning(UserWarning):
    """The gap between training and validation cells costs many of the training cells."""


def split_cells(
    cells: xr.Dataset,
    *,
    kind: Kind = "blocks",
    validation: float = 0.2,
    block: int = 10,
    gap: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Choose the cells for training and for validation.

    Parameters
    ----------
    cells : Dataset
        With people, north and east (cell).
    kind : {"random", "blocks"}, optional
        Draw cells, or (by default) squares of `block` × `block` cells. Randomly drawn cells have
        their neighbours on the other side, so scores on them say little about places not seen.
    validation : float, optional
        Share of the labelled cells, between 0 and 1.
    block : int, optional
        Cells per side of a square, which are aligned with the grid's origin.
    gap : int, optional
        With blocks: no training cell lies within so many cells, along rows and columns, of a
        validation cell. 1 leaves out the eight neighbours. If not given, 1, or twice the context
        of the cells, with which no pixel is seen on both sides.
    seed : int, optional
        Another seed gives another split.

    Returns
    -------
    Dataset
        With the coordinate ``split`` (cell) int8: 0 training, 1 validation, −1 neither, which are
        cells with unknown people and, between blocks, those in the gap. It depends on the set of
        labelled cells and the settings alone, not on the order of the cells.

    Raises
    ------
    InputError
        If a setting is wrong, or one side would be empty.

    Warns
    -----
    GapWarning
        If the gap costs more than a third of the training cells.

    Notes
    -----
    Random: exactly the share of cells, rounded. Blocks: the drawn squares whose number of cells
    comes nearest to it; the gap is taken from the training cells.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> from popdask.imagery.grid import CellGrid
    >>> from popdask.imagery.cutting import cut_cells
    >>> image = xr_zeros(CellGrid(100).geobox(range(10), range(10), pixels=4), "uint8")
    >>> cells = cut_cells(image).assign(people=("cell", np.ones(100)))
    >>> int((split_cells(cells, kind="random").split == 1).sum())
    20
    >>> int((split_cells(cells, block=5).split == 1).sum())
    25
    """
    if not 0 < validation < 1:
        raise InputError(
            f"validation is {validation}; expected a share between 0 and 1, such as 0.2; correct it"
        )
    groups = draw_groups(cells, kind, block, seed)
    target = validation * np.count_nonzero(groups >= 0)
    chosen = draw(groups, target, seed)
    settings = _settings(cells, kind, block, gap, seed)
    return _with_split(cells, groups >= 0, np.isin(groups, chosen), settings)


def fold_cells(
    cells: xr.Dataset,
    folds: int = 5,
    *,
    kind: Kind = "blocks",
    block: int = 10,
    gap: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Deal the cells out to the folds of a cross-validation."""
    groups = draw_groups(cells, kind, block, seed)
    found, sizes = np.unique(groups[groups >= 0], return_counts=True)
    if not (2 <= folds <= 127 and len(found) >= folds):
        drawn = "squares of cells" if kind == "blocks" else "cells"
        raise InputError(
            f"folds is {folds} for {len(found)} {drawn} with known people; expected at least 2, "
            "and no more folds than those; use fewer folds or a smaller block"
        )
    order = np.random.default_rng(seed).permutation(len(found))
    order = order[np.argsort(-sizes[order], kind="stable")]
    held = np.zeros(folds, np.int64)
    fold_of = np.full(groups.max() + 1, NEITHER, np.int8)
    for which in order:  # the largest first, each to the fold that holds the fewest cells
        smallest = int(np.argmin(held))
        held[smallest] += sizes[which]
        fold_of[found[which]] = smallest
    fold = np.where(groups >= 0, fold_of[groups], NEITHER).astype(np.int8)
    settings = _settings(cells, kind, block, gap, seed) | {"folds": folds}
    return cells.assign_coords(fold=("cell", fold, settings))


def select_fold(cells: xr.Dataset, fold: int) -> xr.Dataset:
    """Make the split in which one fold is for validation and the others for training."""
    if "fold" not in cells.coords or not 0 <= fold < cells["fold"].attrs["folds"]:
        held = f"{cells['fold'].attrs['folds']} folds" if "fold" in cells.coords else "no folds"
        raise InputError(
            f"the cells have {held}, and fold {fold} was asked for; expected one of them, counted "
            "from 0; make them with fold_cells"
        )
    folds = cells["fold"].values
    settings = dict(cells["fold"].attrs) | {"fold": fold}
    return _with_split(cells, folds >= 0, folds == fold, settings)


def split_fingerprint(cells: xr.Dataset) -> str:
    """Tell one split from another by a hash of its cells and sides."""
    if "split" not in cells.coords:
        raise InputError("the cells have no split; expected one; make it with split_cells")
    grid = cells_grid(cells)
    rows = np.stack([cells[name].values.astype("<i8") for name in ("north", "east", "split")])
    rows = rows[:, rows[2] != NEITHER]
    rows = rows[:, np.lexsort(rows)]
    place = f"{grid.size!r} {grid.crs} {grid.origin!r}"
    return hashlib.sha256(place.encode() + np.ascontiguousarray(rows).tobytes()).hexdigest()


def draw_groups(cells: xr.Dataset, kind: Kind, block: int, seed: int) -> NDArray[np.int64]:
    """Number what is drawn, a cell or a square of them, from the south-west; −1 if unlabelled."""
    if kind not in ("random", "blocks"):
        raise InputError(
            f"the kind of split is {kind!r}; expected 'random' or 'blocks'; correct it"
        )
    if seed < 0:
        raise InputError(f"seed is {seed}; expected a whole number, 0 or more; correct it")
    if block < 1:
        raise InputError(f"block is {block}; expected cells per side, at least 1, such as 10")
    places = np.stack([cells["north"].values, cells["east"].values])
    labelled = np.isfinite(cells["people"].values)
    if not labelled.any():
        raise InputError(
            f"none of the {cells.sizes['cell']} cells has known people; expected some to split; "
            "give counts where they are cut"
        )
    if "zone" in cells.coords:  # whole zones are drawn, where their middles lie
        places = _middles(places, cells["zone"].values)
    if kind == "blocks":
        places = places // block
    groups = np.full(cells.sizes["cell"], NEITHER, np.int64)
    groups[labelled] = np.unique(places[:, labelled], axis=1, return_inverse=True)[1].ravel()
    return groups


def _middles(places: NDArray[np.int64], zone: NDArray[np.int32]) -> NDArray[np.int64]:
    """The places (2, cell) of cells, moved to the middle of their zone; those in none stay."""
    number = np.where(zone >= 0, zone, 0)
    there = np.bincount(number, zone >= 0).clip(1)
    sums = [np.bincount(number, np.where(zone >= 0, axis, 0)) for axis in places]
    middles = np.floor(np.stack(sums) / there).astype(np.int64)
    return np.where(zone >= 0, middles[:, number], places)


def draw(groups: NDArray[np.int64], target: float, seed: int) -> NDArray[np.int64]:
    """Draw groups until they hold as nearly as can be `target` cells, but neither none nor all."""
    found, sizes = np.unique(groups[groups >= 0], return_counts=True)
    if len(found) < 2:
        raise InputError(
            "all cells with known people lie in one square; expected at least two; use a smaller "
            "block"
        )
    order = np.random.default_rng(seed).permutation(len(found))
    held = np.cumsum(sizes[order])[:-1]
    return found[order[: int(np.argmin(np.abs(held - target))) + 1]]


def _settings(
    cells: xr.Dataset, kind: Kind, block: int, gap: int | None, seed: int
) -> dict[str, str | int]:
    if kind == "random":
        return {"kind": kind, "gap": 0, "seed": seed}
    wanted = max(1, 2 * int(cells.attrs["context"])) if gap is None else gap
    if wanted < 1:
        raise InputError(
            f"gap is {gap}; expected at least 1 cell between blocks, so that neighbours are never "
            'on both sides; correct it, or use kind="random"'
        )
    return {"kind": kind, "block": block, "gap": wanted, "seed": seed}


def _with_split(
    cells: xr.Dataset,
    labelled: NDArray[np.bool_],
    validation: NDArray[np.bool_],
    settings: dict[str, str | int],
) -> xr.Dataset:
    """Add the split, without the training cells that come too near to a validation cell."""
    split = np.where(labelled, np.where(validation, VALIDATION, TRAINING), NEITHER).astype(np.int8)
    gap = int(settings["gap"])
    if gap:
        places = np.stack([cells["north"].values, cells["east"].values], axis=1)
        training = np.flatnonzero(split == TRAINING)
        tree = cKDTree(places[split == VALIDATION])
        away, _ = tree.query(places[training], p=np.inf, distance_upper_bound=gap + 0.5)
        near = training[np.isfinite(away)]
        split[near] = NEITHER
        _warn_of_cost(gap, len(near), len(training))
    if not (split == TRAINING).any():
        raise InputError(
            f"no training cell is more than {gap} cells away from the validation cells; expected "
            "some on both sides; use smaller blocks, a smaller share or a smaller gap"
        )
    return cells.assign_coords(split=("cell", split, settings))


def _warn_of_cost(gap: int, lost: int, training: int) -> None:
    if COSTLY * training < lost < training:
        warnings.warn(
            f"the gap of {gap} cells costs {lost:,} of {training:,} training cells; expected no "
            "more than a third: take larger squares, fewer folds or a smaller gap",
            GapWarning,
            stacklevel=4,
        )


def keep_whole_zones(cells: xr.Dataset) -> xr.Dataset:
    """Take training cells out of the split whose zone is not one of training cells alone."""
    if "zone" not in cells.coords:
        return cells
    split, zone = cells["split"].values.copy(), cells["zone"].values
    others = np.unique(zone[split != TRAINING])
    split[(split == TRAINING) & (np.isin(zone, others) | (zone < 0))] = NEITHER
    if not (split == TRAINING).any():
        raise InputError(
            "no zone lies wholly among the training cells; expected some: use larger squares "
            "(block), a smaller gap, or smaller zones"
        )
    return cells.assign_coords(split=("cell", split, cells["split"].attrs))
