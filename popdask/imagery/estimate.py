"""From a mosaic to a population raster, and why a model says what it says.

The mosaic is brought into tiles of whole cells, whatever its chunks are, with the ring that the
models see around a cell. One task estimates one tile, so pixels are dropped where they were read,
and what a cell gets does not depend on the tile that it is in.

The trick is that cells pass in batches of one shape. Which kernel torch takes for a row of a batch,
and so the last bits of its answer, follows from the shape of the batch and the place in it
(measured: answers differ in batches of 5 or 7, and do not in filled ones of 16, 32 or 64), and a
cell at p = 0.5 hangs on the last bit. So a batch on a CPU is a power of two that follows from the
size of a cell alone: 64 cells of 25 × 25 pixels, and one of 200 × 200, since what passes between
two layers has to stay in the cache.

Two rules join presence and people. The gate is the first work's (Sellebjerg, Lorentsen,
Møller-Jensen, Siddique and Hansen, Population Estimation): nobody where the probability of presence
is at most 0.5, else what the regressor counts. A regressor that learned from inhabited cells counts
the people of a cell *if* it is inhabited; its count times the probability is the expected number,
the least wrong in the square.

Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via
gradient-based localization", ICCV) weights each channel of the last feature map, which still knows
where things are, by its mean gradient: how much the answer would change with it. The weighted sum,
without what speaks against the answer, is large where the image speaks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from odc.geo.xr import xr_coords
from torch import Tensor, nn

from popdask.blocks.overlap import as_dask
from popdask.blocks.torch import fixed_arithmetic, pick_device
from popdask.errors import InputError
from popdask.imagery.cutting import (
    Lattice,
    as_bands,
    cut_block,
    find_lattice,
    is_nodata,
    nodata_of,
    valid_pixels,
)
from popdask.imagery.features import FEATURES_NETWORK
from popdask.imagery.grid import CellGrid, as_grid
from popdask.imagery.model import TrainedModel, as_trained
from popdask.imagery.networks import CountCNN, Network, PopulationViT, PresenceCNN

CALL_BYTES = 2**24  # of pixels given to a model at once
BATCH_PIXELS = 1024**2  # of one band: keeps a GPU busy; more would leave more of a batch empty
CPU_PIXELS = 200**2  # of one band: what passes between two layers stays in the cache
CPU_BATCH = 64  # cells, at most
TILE_FEATURES = 64  # cells of plain features in a batch: each is described by itself
Joining = Literal["gate", "expected"]
RULES: tuple[Joining, ...] = ("gate", "expected")
TILE_BYTES = 2**25  # of pixels, unless one cell has more
TILE_CELLS = 16  # along a side, where the bytes allow it, so that batches on a GPU are full
COUNTS = ("count", "transformer", "weighted")
LIVED_IN = 0.5  # people of an estimate above which somebody lives in a cell, once rounded
Model = TrainedModel | Network


@dataclass(frozen=True)
class Rule:
    """How a tile is estimated."""

    pixels: int
    """Rows and columns of a cell."""
    ring: int
    """Pixels around the tile."""
    nodata: Any
    """What pixels without data hold."""
    threshold: float
    """Probability of presence above which people are counted."""
    batch_size: int
    """Cells in a batch on a GPU, at most."""
    device: str
    """A torch device, or "auto"."""
    joining: Joining = "gate"
    """How presence and counts are joined."""


def estimate_tile(
    tile: NDArray,
    valid: NDArray[np.bool_],
    presence: TrainedModel | None,
    count: TrainedModel | None,
    rule: Rule,
) -> NDArray[np.float32]:
    """Presence and people (2, y, x) of the cells in a tile (band, row, col) with its ring."""
    # `valid` (row, col) goes without the ring.
    usable = _usable(tile, valid, rule)
    if tile.dtype.kind == "f":
        tile = np.nan_to_num(tile, nan=0.0)  # only the ring of a usable cell can lack data
    out = np.full((2, *usable.shape), np.nan, np.float32)
    cells = np.argwhere(usable)
    if presence is not None:
        chance = _predict(presence, tile, cells, rule)
        out[0, *cells.T] = chance
        out[1, *cells.T] = 0
        if rule.joining == "gate":
            cells = cells[chance > rule.threshold]
    if count is not None:
        people = _predict(count, tile, cells, rule)
        if presence is not None and rule.joining == "expected":
            people = joint_people(chance, people, rule="expected")
        out[1, *cells.T] = people
    return out


def _usable(tile: NDArray, valid: NDArray[np.bool_], rule: Rule) -> NDArray[np.bool_]:
    """Find the cells (y, x) of which each pixel has data and no edge is padding."""
    p, (height, width) = rule.pixels, valid.shape
    own = tile[:, rule.ring : rule.ring + height, rule.ring : rule.ring + width]
    down, across = height // p, width // p
    full = np.asarray(valid.reshape(down, p, across, p).all((1, 3)))
    for line in (0, p - 1):
        rows = is_nodata(own[:, line::p], rule.nodata).reshape(-1, down, across, p)
        columns = is_nodata(own[:, :, line::p], rule.nodata).reshape(-1, down, p, across)
        full &= ~rows.all((0, 3)) & ~columns.all((0, 2))
    return full


def _predict(
    model: TrainedModel, tile: NDArray, cells: NDArray[np.int64], rule: Rule
) -> NDArray[np.float32]:
    """Predict some cells (n, 2) of a tile, few enough at a time to cut them out."""
    span, rim = model.pixels, rule.ring - model.context * rule.pixels
    step = batch_of(model, rule.batch_size, rule.device)
    image_bytes = len(tile) * span**2 * tile.itemsize
    many = step * max(1, CALL_BYTES // (step * image_bytes))
    out = np.empty(len(cells), np.float32)
    for start in range(0, len(cells), many):
        images = cut_block(tile[:, rim:, rim:], cells[start : start + many], rule.pixels, span)
        out[start : start + many] = model.predict(images, device=rule.device, batch_size=step)
    return out


def batch_of(model: TrainedModel, batch_size: int, device: str) -> int:
    """Say how many cells make a batch: what stays in the cache of a CPU, or keeps a GPU busy."""
    if model.config["network"] == FEATURES_NETWORK:
        return TILE_FEATURES
    if pick_device(device).type == "cpu":
        room = max(1, min(CPU_BATCH, batch_size, CPU_PIXELS // model.pixels**2))
        return 1 << (int(room).bit_length() - 1)
    return max(1, min(batch_size, BATCH_PIXELS // model.pixels**2))


def joint_people(
    presence: NDArray[np.floating],
    count: NDArray[np.floating],
    *,
    rule: Joining = "gate",
    threshold: float = 0.5,
) -> NDArray[np.floating]:
    """Join the probability that cells are inhabited with the people counted in them."""
    if rule not in RULES:
        raise InputError(f"the rule is {rule!r}; expected 'gate' or 'expected'; correct it")
    if rule == "expected":
        return presence * count
    return np.where(presence > threshold, count, count.dtype.type(0))


def better_rule(
    presence: NDArray[np.floating],
    count: NDArray[np.floating],
    truth: NDArray[np.floating],
    *,
    threshold: float = 0.5,
) -> Joining:
    """Choose the rule with the smaller squared error, on cells that no model has learned from."""
    wrong = {
        rule: np.square(joint_people(presence, count, rule=rule, threshold=threshold) - truth).sum()
        for rule in RULES
    }
    return min(RULES, key=lambda rule: float(wrong[rule]))


def estimate(
    image: xr.DataArray,
    presence: Model | None,
    count: Model | None,
    *,
    cell_size: float | CellGrid,
    rule: Joining = "gate",
    threshold: float = 0.5,
    batch_size: int = 64,
    device: str = "auto",
) -> xr.Dataset:
    """Estimate the people in every cell of a mosaic.

    Parameters
    ----------
    image : DataArray, (band, y, x) or (y, x)
        Raw pixels as the models were trained on, NumPy or Dask, with a CRS and a whole number of
        pixels in each cell, as `popdask.imagery.mosaic.open_mosaic` with a grid gives it.
    presence : TrainedModel or None
        Gives the probability that somebody lives in a cell. None: people are counted everywhere.
    count : TrainedModel or None
        Counts people: a regressor, the transformer or the single-stage one. None: presence alone.
    cell_size : float or CellGrid
        Side of a cell in units of the image's CRS, on the grid from (0, 0); or a grid.
    rule : {"gate", "expected"}, optional
        People are counted where presence is above the threshold, or the count of every cell is
        multiplied by its presence.
    threshold : float, optional
        Of the gate: cells with a higher probability of presence are counted, the others have 0
        people.
    batch_size : int, optional
        Cells that pass through a model at once, at most; on a CPU 64 or fewer, so many that their
        pixels stay in its cache.
    device : str, optional
        A torch device, or "auto": a GPU where the worker has one.

    Returns
    -------
    Dataset
        ``presence`` (y, x) float32, a probability, and ``population`` (y, x) float32, people per
        cell, at least 0 (negative counts are set to 0); only what has a model. The whole cells of
        the image, north up, with their CRS and transform. NaN where the image has no data: where
        one pixel of the cell has none, or a whole edge of it is padding, as
        `popdask.imagery.cutting.drop_padding` finds it; the ring around it may lack data. Lazy.

    Raises
    ------
    InputError
        If there is no model, one is of the wrong kind or was trained on other bands, cells or
        pixels, the image has no CRS or does not fit the grid, or a setting is out of its range.

    Notes
    -----
    On a CPU the same to the bit under any chunking, on one kind of machine; on a GPU to rounding. A
    task holds one tile of at most 32 MiB of pixels (one cell where that is more) with its ring, and
    one batch. Torch uses one thread; Dask's threads and processes are the parallelism. Each model
    is one key of the graph that all tasks share, so it travels to a worker once.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> image = xr_zeros(CellGrid(100).geobox(range(3), range(4), pixels=20), "uint8") + 9
    >>> network = {"network": "PresenceCNN", "widths": (4, 8), "hidden": (8,)}
    >>> model = TrainedModel.untrained("presence", network, pixels=20)
    >>> estimate(image.astype("uint8"), model, None, cell_size=100).presence.shape
    (3, 4)
    """
    _check_settings(rule, threshold, batch_size)
    image = as_bands(image)
    lattice = find_lattice(image, as_grid(cell_size, image.rio.crs))
    models = {
        name: as_trained(model, image.dtype, lattice.pixels)
        for name, model in (("presence", presence), ("count", count))
        if model is not None
    }
    if not models:
        raise InputError("presence and count are both None; expected at least one model; give one")
    for name, trained in models.items():
        _check_model(name, trained, image, lattice)
    ring = max(trained.context for trained in models.values()) * lattice.pixels
    how = Rule(lattice.pixels, ring, nodata_of(image), threshold, batch_size, device, rule)
    values = _map_tiles(image, lattice, how, models.get("presence"), models.get("count"))
    return _as_dataset(values, lattice, models)


def _check_settings(rule: str, threshold: float, batch_size: int) -> None:
    if rule not in RULES:
        raise InputError(f"the rule is {rule!r}; expected 'gate' or 'expected'; correct it")
    if not 0 <= threshold <= 1:
        raise InputError(
            f"threshold is {threshold}; expected a probability from 0 to 1, such as 0.5; correct it"
        )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; expected at least 1; correct it")


def _check_model(name: str, model: TrainedModel, image: xr.DataArray, lattice: Lattice) -> None:
    """Compare a model with what it is to see."""
    kinds = ("presence",) if name == "presence" else COUNTS
    if model.kind not in kinds:
        raise InputError(
            f"{name} is a model of the kind {model.kind!r}; expected {' or '.join(kinds)}; give "
            "presence first, then count, and None for what is not to be estimated"
        )
    if model.bands != image.sizes["band"]:
        raise InputError(
            f"the image has {image.sizes['band']} bands and the model of {name} was trained on "
            f"{model.bands}; expected as many; select them with isel(band=…)"
        )
    size, pixel = lattice.grid.size, lattice.grid.size / lattice.pixels
    there = (size, pixel, (2 * model.context + 1) * lattice.pixels)
    trained = (model.cell_size, model.resolution, model.pixels)
    if any(abs(b / a - 1) > 1e-6 for a, b in zip(there, trained, strict=True)):
        raise InputError(
            f"the cells are {size:g} wide with pixels of {pixel:g}, {there[2]} × {there[2]} with "
            f"their ring, and the model of {name} was trained on cells {trained[0]:g} wide with "
            f"pixels of {trained[1]:g}, {trained[2]} × {trained[2]}; expected the same; open the "
            "mosaic with the resolution of the model"
        )


def _map_tiles(
    image: xr.DataArray,
    lattice: Lattice,
    rule: Rule,
    presence: TrainedModel | None,
    count: TrainedModel | None,
) -> da.Array:
    """Estimate tile by tile: (band, y, x) → (2, y, x) of all cells that the image touches."""
    p, fill = lattice.pixels, nodata_of(image)
    rim, pads = rule.ring // p, _pads(lattice, rule.ring)
    pixels = _padded(image.data, [(0, 0), *pads], fill)
    valid = _padded(valid_pixels(image, fill), pads, False)
    room = (TILE_BYTES / image.dtype.itemsize / len(image)) ** 0.5
    tiles = [tile_cells(sizes, p, room=int(room / p), rim=rim) for sizes in pixels.chunks[1:]]
    spans = [tuple(p * n for n in cells) for cells in tiles]
    pixels = pixels.rechunk((-1, *spans))
    if rule.ring:
        around = {0: 0, 1: rule.ring, 2: rule.ring}
        borders = {0: "none", 1: fill, 2: fill}
        pixels = da.overlap.overlap(pixels, around, borders, allow_rechunk=False)
    keys = [m and dask.delayed(m, pure=True, traverse=False) for m in (presence, count)]
    return da.blockwise(
        estimate_tile,
        "cyx",
        pixels,
        "byx",
        valid.rechunk(tuple(spans)),
        "yx",
        keys[0],
        None,
        keys[1],
        None,
        rule=rule,
        new_axes={"c": 2},
        adjust_chunks=dict(zip("yx", tiles, strict=True)),
        align_arrays=False,
        concatenate=True,
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )


def _pads(lattice: Lattice, ring: int) -> list[tuple[int, int]]:
    """Pixels that lack before and after the image, to whole cells that are as wide as the ring."""
    pads = []
    for start, length in ((lattice.top, lattice.height), (lattice.left, lattice.width)):
        before, after = start % lattice.pixels, -(start + length) % lattice.pixels
        whole = before + length + after
        pads.append((before, after + max(0, ring - whole)))  # a neighbour lends all of a ring
    return pads


def _padded(array: Any, pads: Sequence[tuple[int, int]], fill: Any) -> da.Array:
    """Pad to whole cells; NumPy becomes one chunk."""
    array = as_dask(array)
    return da.pad(array, pads, constant_values=fill) if np.any(pads) else array


def tile_cells(sizes: Sequence[int], pixels: int, *, room: int, rim: int) -> tuple[int, ...]:
    """Choose tiles along an axis, in cells, that end with chunks of pixels where they can."""
    total = sum(sizes) // pixels
    most = max(room, 2 * rim, 1)
    least = max(rim, min(TILE_CELLS, most))
    kept = [0]
    for border in sorted({round(end / pixels) for end in np.cumsum(sizes).tolist()}):
        if border - kept[-1] >= least and total - border >= least:
            kept.append(border)
    tiles: list[int] = []
    for start, end in pairwise([*kept, total]):
        parts = ceil((end - start) / most)
        cuts = [start + (end - start) * i // parts for i in range(parts + 1)]
        tiles += [b - a for a, b in pairwise(cuts)]
    return tuple(tiles)


def _as_dataset(values: da.Array, lattice: Lattice, models: dict[str, TrainedModel]) -> xr.Dataset:
    """Give the whole cells of the image their names, coordinates and CRS."""
    p, grid = lattice.pixels, lattice.grid
    first = lattice.top // p, lattice.left // p
    down, right = lattice.inside
    if not down or not right:
        raise InputError(
            f"the image has {lattice.height} × {lattice.width} pixels, which hold no whole cell of "
            f"{grid.label} ({p} × {p}); expected at least one; use smaller cells or a larger image"
        )
    box = grid.geobox(range(-down.stop, -down.start), range(right.start, right.stop))
    whole = (slice(r.start - f, r.stop - f) for r, f in zip((down, right), first, strict=True))
    values = values[:, *whole]
    described = {
        "presence": {"units": "1", "long_name": "probability that somebody lives in the cell"},
        "population": {"units": "people per cell", "long_name": "population"},
    }
    layers = {
        name: (("y", "x"), layer, described[name])
        for model, name, layer in zip(("presence", "count"), described, values, strict=True)
        if model in models
    }
    return xr.Dataset(layers, coords=xr_coords(box, dims=("y", "x")))


def gradcam(model: TrainedModel | Network, image: ArrayLike) -> NDArray[np.float32]:
    """Show what in an image speaks for presence, or for people.

    Parameters
    ----------
    model : TrainedModel
        Of presence or of people.
    image : array_like, (band, row, col)
        Raw pixels of one cell with its ring, as the model was trained on; (row, col) for one band.

    Returns
    -------
    ndarray of float32, (row, col)
        In [0, 1]: 1 where the image speaks most for a higher answer, 0 where it does not. 0
        everywhere if nothing does. The ring around the cell is part of it.

    Raises
    ------
    InputError
        If the image has other bands or pixels than the model.

    Notes
    -----
    ReLU(Σ α A) over the channels A of the last feature map, where α is the mean of the answer's
    gradient over a channel; the map is scaled up bilinearly, and divided by its maximum. The answer
    is the logit of presence, or people; log(1 + people) of a transformer. The last feature map is
    what the last convolution block gives (6 × 6 for 200 × 200 pixels); of a transformer, the codes
    of the patches that go into the last layer, the last ones that the answer hangs on.

    Examples
    --------
    >>> network = {"network": "PresenceCNN", "widths": (4, 8), "hidden": (8,)}
    >>> model = TrainedModel.untrained("presence", network, pixels=40)
    >>> gradcam(model, np.zeros((1, 40, 40), np.uint8)).shape
    (40, 40)
    """
    pixels = np.asarray(image)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    model = as_trained(model, pixels.dtype, pixels.shape[-1])
    expected = (model.bands, model.pixels, model.pixels)
    if pixels.shape != expected:
        raise InputError(
            f"the image has (band, row, col) = {pixels.shape}, expected {expected}, what the model "
            "was trained on; cut cells with its bands, size and context"
        )
    with fixed_arithmetic(1), torch.enable_grad():
        normal = model.normalisation(torch.from_numpy(np.ascontiguousarray(pixels[None])))
        features, answer = split(model.module, normal)
        features = features.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(answer(features).sum(), features)
    return _scaled_up(activation(features.detach(), gradient), pixels.shape[-2:])


def split(module: Network, image: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the last feature map (1, C, h, w), and the rest of the network as a function of it."""
    if not isinstance(module, PopulationViT):
        if not isinstance(module, PresenceCNN | CountCNN):
            raise InputError(
                f"Grad-CAM explains networks that learn from pixels, and this model is "
                f"{module.config['network']!r}; give a convolutional network or a transformer"
            )
        return module.features(image), module.head
    codes = module.patches(image).flatten(2).transpose(1, 2)  # (1, n, width)
    codes = torch.cat([module.token, codes], dim=1) + module.positions
    *before, last = module.layers
    for layer in before:
        codes = layer(codes)
    token, patches = codes[:, :1], codes[:, 1:]
    side = int(patches.shape[1] ** 0.5)

    def answer(maps: Tensor) -> Tensor:
        mixed = last(torch.cat([token, maps.flatten(2).transpose(1, 2)], dim=1))
        return module.head(module.norm(mixed[:, 0]))

    return patches.transpose(1, 2).unflatten(2, (side, side)), answer


def activation(features: Tensor, gradient: Tensor) -> Tensor:
    """ReLU of the channels (1, C, h, w), weighted by their mean gradients: (h, w)."""
    weights = gradient.mean((2, 3), keepdim=True)
    return torch.relu((weights * features).sum(1))[0]


def _scaled_up(active: Tensor, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Scale (h, w) up to (row, col), the highest value 1."""
    size = (shape[0], shape[1])
    large = nn.functional.interpolate(active[None, None], size, mode="bilinear")[0, 0]
    top = large.max()
    return (large / top if top > 0 else large).numpy()


def telling_cells(
    predicted: ArrayLike, true: ArrayLike, n: int = 3
) -> dict[str, NDArray[np.int64]]:
    """Pick the cells whose maps tell most: the best, the typical and the worst estimates."""
    predicted, true = np.asarray(predicted, float), np.asarray(true, float)
    if predicted.ndim != 1 or predicted.shape != true.shape or n < 1:
        raise InputError(
            f"telling_cells got {predicted.shape} predictions, {true.shape} truths and n = {n}; "
            "expected as many of one as of the other, and a positive n"
        )
    error = np.abs(predicted - true)
    lived_in = np.flatnonzero(np.isfinite(error) & ((true > 0) | (predicted > LIVED_IN)))
    ordered = lived_in[np.argsort(error[lived_in], kind="stable")]
    each = min(n, len(ordered) // 3)
    middle = (len(ordered) - each) // 2
    return {
        "best": ordered[:each],
        "typical": ordered[middle : middle + each],
        "worst": ordered[::-1][:each],
    }
