"""Groups of cells that look alike, found without labels, and views of them.

After Sellebjerg, Lorentsen, Møller-Jensen, Siddique and Hansen, Population Estimation. Every cell
is shown to EfficientNet-B3 as a picture of 300 × 300 pixels in three bands, and what its last layer
sees, averaged over the picture and brought to length 1, are the cell's 1536 features. All batches
have one shape, the last one filled up: kernels of other shapes differ in the last bit. On a CPU a
batch is one cell, which passes through the layers within the cache.

The network is that of Tan and Le (2019), "EfficientNet: rethinking model scaling for convolutional
neural networks", ICML, 1.2 times as wide and 1.4 times as deep as B0. Layers are named as
torchvision names them, so that the weights it publishes (trained on ImageNet) load as they are.
Without weights it is a random one, which distinguishes textures but knows no things; its batch
norms have seen nothing, and what passes would fade from layer to layer, so they take their
statistics from a seeded batch of noise.

Features, brought to 128 principal components and to 20 dimensions by UMAP (McInnes, Healy and
Melville 2018), are grouped by KMeans and by HDBSCAN (Campello, Moulavi and Sander 2013). A second
UMAP, to two dimensions, is for looking at. Principal components are found by Dask over all cells,
in chunks of a fixed size; what follows works on 128 numbers per cell, in one place and on one
thread, so that a seed gives one answer.
"""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import safetensors.torch
import torch
import xarray as xr
from dask.delayed import Delayed, delayed
from numpy.typing import DTypeLike, NDArray
from odc.geo.xr import xr_coords
from safetensors import SafetensorError
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional

from popdask.blocks.overlap import as_dask
from popdask.blocks.torch import fixed_arithmetic, pick_device
from popdask.errors import InputError
from popdask.imagery.cells import CHUNK_CELLS, cells_grid
from popdask.imagery.cutting import (
    Lattice,
    as_bands,
    cut_cells,
    find_lattice,
    nodata_of,
    valid_pixels,
)
from popdask.imagery.grid import CellGrid, as_grid, block_side, cut_at_multiples
from popdask.imagery.model import Normalisation

PLOT_AXES = ("plot_x", "plot_y")  # of the second UMAP
CHUNK_ROWS = 8192  # cells in a chunk, for principal components
KMEANS_STARTS = 10
FEATURES = 1536
PICTURE_SIDE = 300  # pixels that a cell is scaled to
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
URL = "https://download.pytorch.org/models/efficientnet_b3_rwightman-b3899882.pth"

# Table 1 of the paper, scaled: expansion, kernel, stride, channels in and out, blocks.
STAGES = (
    (1, 3, 1, 40, 24, 2),
    (6, 3, 2, 24, 32, 3),
    (6, 5, 2, 32, 48, 3),
    (6, 3, 2, 48, 96, 5),
    (6, 5, 1, 96, 136, 5),
    (6, 5, 2, 136, 232, 6),
    (6, 3, 1, 232, 384, 2),
)


def scene_map(groups: xr.Dataset) -> xr.Dataset:
    """Lay groups of cells onto the map."""
    if {"y", "x"} <= set(groups.dims):
        return groups
    north, east = groups["north"].values, groups["east"].values
    norths, easts = (range(int(axis.min()), int(axis.max()) + 1) for axis in (north, east))
    box = cells_grid(groups).geobox(norths, easts)
    places = norths.stop - 1 - north, east - easts.start

    def lay(column: xr.DataArray) -> tuple[tuple[str, str], NDArray, dict]:
        none = -1 if column.dtype.kind == "i" else np.nan
        raster = np.full(box.shape, none, column.dtype)
        raster[places] = column.values
        return ("y", "x"), raster, column.attrs

    columns = {name: lay(column) for name, column in groups.data_vars.items()}
    return xr.Dataset(columns, xr_coords(box, dims=("y", "x")), groups.attrs)


def scene_table(groups: xr.Dataset) -> pd.DataFrame:
    """Write groups as a table with a row for every cell that has features."""
    flat = groups.drop_vars("spatial_ref", errors="ignore").to_dataframe()
    if {"y", "x"} <= set(groups.dims):
        flat = flat.reset_index()
        north, east = cells_grid(groups).cells_at(flat["x"], flat["y"])
        flat = flat.drop(columns=["y", "x"]).assign(north=north, east=east)
    first = [name for name in ("north", "east") if name in flat]
    last = [str(name) for name in groups.data_vars]
    others = [name for name in flat if name not in (*first, *last)]
    known = flat["plot_x"].notna()
    return flat.loc[known, [*first, *others, *last]].reset_index(drop=True)


def scene_examples(
    groups: xr.Dataset, source: xr.Dataset | xr.DataArray, *, count: int = 60
) -> xr.Dataset:
    """Choose cells that show what is where in the plot, and read their images.

    Examples
    --------
    >>> place = {"north": ("cell", np.arange(30)), "east": ("cell", np.arange(30))}
    >>> images = ("cell", "band", "row", "column"), np.zeros((30, 3, 8, 8), np.uint8)
    >>> cells = xr.Dataset({"images": images}, coords=place)
    >>> along = ("cell", np.arange(30.0))
    >>> groups = xr.Dataset({"plot_x": along, "plot_y": along}, coords=place)
    >>> scene_examples(groups, cells, count=4)["images"].shape  # 4 at most
    (3, 3, 8, 8)
    """
    table = scene_table(groups)
    chosen = table.loc[_scattered(table[list(PLOT_AXES)].to_numpy(), count)]
    cells = source
    if isinstance(source, xr.DataArray):
        cells = cut_cells(source, None, cells_grid(groups))
    place = pd.MultiIndex.from_arrays([cells["north"].values, cells["east"].values])
    wanted = place.get_indexer(pd.MultiIndex.from_frame(chosen[["north", "east"]]))
    images = cells["images"].isel(cell=wanted).drop_vars("spatial_ref", errors="ignore").compute()
    labels = {name: ("cell", chosen[name].to_numpy()) for name in map(str, groups.data_vars)}
    return xr.Dataset({"images": images, **labels})


def _scattered(places: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Choose rows of (n, 2) that are spread evenly over the plane, one per square of a lattice."""
    low, extent = places.min(0), np.ptp(places, axis=0)
    side = math.sqrt(max(extent.prod(), 1e-12) / count)
    square = np.floor((places - low) / side)
    middle = low + (square + 0.5) * side
    order = np.argsort(((places - middle) ** 2).sum(1), kind="stable")
    _, first = np.unique(square[order], axis=0, return_index=True)
    return np.sort(order[first])[:count]


@dataclass(frozen=True)
class GroupSettings:
    """How cells are grouped, as `scene_groups` takes it."""

    k: tuple[int, ...]
    pca: int
    dimensions: int
    neighbours: int
    min_dist: float
    epochs: int
    min_cluster_size: int
    min_samples: int
    seed: int


def scene_groups(
    features: xr.DataArray,
    *,
    k: Sequence[int] = (3, 4, 5),
    pca: int = 128,
    dimensions: int = 20,
    neighbours: int = 50,
    min_dist: float = 0.05,
    epochs: int = 200,
    min_cluster_size: int = 500,
    min_samples: int = 50,
    seed: int = 0,
) -> xr.Dataset:
    """Group the cells that look alike.

    Parameters
    ----------
    features : DataArray, (…, feature)
        As `scene_features` gives them, on cells or on a map; NaN = no data; NumPy or Dask.
    k : sequence of int, optional
        Numbers of groups of KMeans, one grouping for each.
    pca : int, optional
        Principal components; fewer, with a warning, where there are not so many cells or features.
    dimensions : int, optional
        Dimensions that UMAP leaves for grouping.
    neighbours : int, optional
        Cells that UMAP takes to be around each, itself among them: few for detail, many for the
        whole.
    min_dist : float, optional
        How close UMAP may put cells.
    epochs : int, optional
        Of UMAP.
    min_cluster_size, min_samples : int, optional
        Of HDBSCAN: cells of a group, and cells around each of its cores, at least.
    seed : int, optional
        Of the principal components, UMAP and KMeans.

    Returns
    -------
    Dataset
        On the cells or the map of the features: ``kmeans_3`` and so on, and ``hdbscan``, int16,
        numbered from the group with most cells on, −1 = none (no data; in HDBSCAN, noise too);
        ``plot_x`` and ``plot_y``, float32, each cell's place in the plot, NaN = no data. Its
        attributes hold the settings, with the components that were used.

    Raises
    ------
    InputError
        If there are too few cells with features for a setting, or a setting is out of range.

    Warns
    -----
    UserWarning
        If fewer principal components are used.

    Notes
    -----
    Eager: features are computed once and kept in memory, 6 kB per cell, spread over the workers
    where there is a cluster. The same for the same features and seed, under any chunking.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> towns, woods = rng.normal(1, 0.1, (30, 8)), rng.normal([1, -1] * 4, 0.1, (30, 8))
    >>> features = xr.DataArray(np.concatenate([towns, woods]), dims=("cell", "feature"))
    >>> groups = scene_groups(
    ...     features, k=[2], pca=4, dimensions=2, neighbours=10, min_cluster_size=9, min_samples=5
    ... )
    >>> groups.kmeans_2.groupby(groups.kmeans_2).count().values.tolist()
    [30, 30]
    """
    settings = GroupSettings(
        tuple(k), pca, dimensions, neighbours, min_dist, epochs, min_cluster_size, min_samples, seed
    )
    umap = _load_umap()
    features = features.transpose(..., "feature")
    rows = da.asarray(features.data).reshape(-1, features.sizes["feature"])
    with threadpool_limits(1):
        (rows,) = dask.persist(rows)
        known = np.asarray(da.isfinite(rows).all(1))
        used = _check(settings, int(known.sum()), rows.shape[1])
        reduced = _principal(rows[np.flatnonzero(known)], used, seed)
        columns = _group(reduced, settings, umap)
    groups = {name: _spread(values, known, features) for name, values in columns.items()}
    attrs = features.attrs | asdict(settings) | {"k": list(settings.k), "pca": used}
    return xr.Dataset(groups, attrs=attrs).assign_coords(features.isel(feature=0, drop=True).coords)


def _check(settings: GroupSettings, cells: int, width: int) -> int:
    """Refuse settings that so few cells do not allow; give the principal components to use."""
    most: Mapping[str, tuple[Any, int, int]] = {
        "pca": (settings.pca, 1, max(settings.pca, 1)),
        "dimensions": (settings.dimensions, 2, cells - 2),
        "neighbours": (settings.neighbours, 2, cells - 1),
        "epochs": (settings.epochs, 1, 10**6),
        "min_cluster_size": (settings.min_cluster_size, 2, cells),
        "min_samples": (settings.min_samples, 1, cells),
        **{f"k = {k}": (k, 1, cells) for k in settings.k},
    }
    for name, (value, low, high) in most.items():
        if not isinstance(value, int | np.integer) or not low <= value <= high:
            raise InputError(
                f"{name} is {value!r} where {cells} cells have features; expected a whole number "
                f"from {low} to {high}: change it, or take more cells"
            )
    if not 0 <= settings.min_dist <= 1:
        raise InputError(f"min_dist is {settings.min_dist!r}; expected a number from 0 to 1")
    used = min(settings.pca, cells - 1, width)
    if used < settings.pca:
        warnings.warn(
            f"{used} principal components are used instead of {settings.pca}, because there are "
            f"{cells} cells of {width} features",
            stacklevel=3,
        )
    return used


def _principal(rows: da.Array, components: int, seed: int) -> NDArray[np.float32]:
    """Bring rows (n, feature) to length 1 and to their principal components."""
    from dask_ml.decomposition import PCA

    # Other chunks would draw other random projections; in float32, four iterations without
    # orthogonalisation between them lose all components but the first few.
    rows = rows.rechunk((CHUNK_ROWS, -1)).astype(np.float64)
    rows = rows / da.maximum(da.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    model = PCA(components, svd_solver="randomized", iterated_power=4, random_state=seed).fit(rows)
    # As its transform would, which fails in dask-ml 2025.1 with scikit-learn 1.9.
    projected = (rows - model.mean_) @ model.components_.T
    return np.asarray(projected).astype(np.float32)


def _load_umap() -> type:
    """Import what numba compiles for seconds, before any feature is computed in vain."""
    try:
        from numba.core.dispatcher import Dispatcher
        from umap import UMAP, layouts, umap_, utils
    except ModuleNotFoundError as error:
        raise InputError(
            f"scene groups need {error.name}, which is not installed: "
            'pip install "popdask[scenes]".'
        ) from None
    # UMAP keeps few of its kernels on disk: every process would compile the others for 9 seconds.
    for kernel in (thing for module in (layouts, umap_, utils) for thing in vars(module).values()):
        if isinstance(kernel, Dispatcher):
            kernel.enable_caching()
    return UMAP


def _group(reduced: NDArray[np.float32], settings: GroupSettings, umap: type) -> dict[str, NDArray]:
    """Return the columns of labels and places of rows (n, component)."""
    from sklearn.cluster import HDBSCAN, KMeans

    common = {
        "n_neighbors": settings.neighbours,
        "min_dist": settings.min_dist,
        "n_epochs": settings.epochs,
        "metric": "cosine",
        "random_state": settings.seed,
        "n_jobs": 1,
    }
    space = umap(n_components=settings.dimensions, **common).fit_transform(reduced)
    columns = {
        f"kmeans_{k}": KMeans(k, n_init=KMEANS_STARTS, random_state=settings.seed).fit_predict(
            space
        )
        for k in settings.k
    }
    dense = HDBSCAN(settings.min_cluster_size, min_samples=settings.min_samples, copy=True)
    columns["hdbscan"] = dense.fit_predict(space)
    places = umap(n_components=2, **common).fit_transform(reduced)
    return {name: _by_size(labels) for name, labels in columns.items()} | dict(
        zip(PLOT_AXES, places.T, strict=True)
    )


def _by_size(labels: NDArray[np.integer]) -> NDArray[np.int16]:
    """Number groups from the one with most cells; of equals, from the first seen; −1 stays."""
    found, first, cells = np.unique(labels[labels >= 0], return_index=True, return_counts=True)
    rank = np.empty(len(found), np.int16)
    rank[np.lexsort((first, -cells))] = np.arange(len(found))
    return np.where(labels < 0, np.int16(-1), rank[np.searchsorted(found, labels)])


def _spread(values: NDArray, known: NDArray[np.bool_], features: xr.DataArray) -> tuple:
    """Put values of the known cells in their places."""
    label = values.dtype.kind == "i"
    none = -1 if label else np.nan
    words = "group of the cell, −1 = none" if label else "place of the cell in the plot"
    out = np.full(len(known), none, values.dtype)
    out[known] = values
    attrs = {"long_name": words, "units": "1"}
    return features.dims[:-1], out.reshape(features.shape[:-1]), attrs


class EfficientNetB3(nn.Module):
    """EfficientNet-B3: (B, 3, 300, 300) → (B, classes), 12,233,232 parameters for 1000 classes."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        stages = [
            nn.Sequential(
                MBConv(expansion, kernel, stride, before, after),
                *(MBConv(expansion, kernel, 1, after, after) for _ in range(blocks - 1)),
            )
            for expansion, kernel, stride, before, after, blocks in STAGES
        ]
        first, last = _conv(3, STAGES[0][3], 3, stride=2), _conv(STAGES[-1][4], FEATURES, 1)
        self.features = nn.Sequential(first, *stages, last)
        self.classifier = nn.Sequential(nn.Dropout(0.3), nn.Linear(FEATURES, classes))

    def embed(self, x: Tensor) -> Tensor:
        """Return the features of images, the mean over their places: (B, 3, h, w) → (B, 1536)."""
        return self.features(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the classes."""
        return self.classifier(self.embed(x))


class MBConv(nn.Module):
    """Inverted residual: widen, look around channel by channel, weigh the channels, narrow."""

    def __init__(self, expansion: int, kernel: int, stride: int, before: int, after: int) -> None:
        super().__init__()
        wide = before * expansion
        self.block = nn.Sequential(
            *([_conv(before, wide, 1)] if expansion > 1 else []),
            _conv(wide, wide, kernel, stride=stride, groups=wide),
            SqueezeExcitation(wide, before // 4),
            _conv(wide, after, 1, activation=False),
        )
        self.residual = stride == 1 and before == after

    @property
    def norm(self) -> nn.Module:
        """The batch norm that ends the block."""
        return self.block.get_submodule(f"{len(self.block) - 1}.1")

    def forward(self, x: Tensor) -> Tensor:
        """Add what the block finds, where shapes allow it."""
        return x + self.block(x) if self.residual else self.block(x)


class SqueezeExcitation(nn.Module):
    """A weight for each channel, from the means of all (Hu, Shen and Sun 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of (B, channels, h, w)."""
        weights = nn.functional.silu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(weights))


def _conv(
    before: int,
    after: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    """Convolution, batch norm and, mostly, SiLU."""
    layers = [
        nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    ]
    return nn.Sequential(*layers, *([nn.SiLU(inplace=True)] if activation else []))


def load_efficientnet(weights: str | Path | None = None, *, seed: int = 0) -> EfficientNetB3:
    """Make the network ready for use."""
    with torch.device("meta"):  # layers draw weights of their own, from torch's global state
        network = EfficientNetB3()
    network.to_empty(device="cpu")
    if weights is None:
        _invent(network, seed)
    else:
        state = _fetch() if weights == "imagenet" else _read(Path(weights))
        _adopt(network, state, str(weights))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


def _invent(network: EfficientNetB3, seed: int) -> None:
    """Draw weights (He et al. 2015), and take the statistics of the batch norms from noise."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            spread = math.sqrt(2 / layer.weight[0].numel())
            nn.init.normal_(layer.weight, 0, spread, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
            layer.momentum = 1.0
    for layer in network.modules():
        if isinstance(layer, MBConv) and layer.residual:
            # Near the identity, as in Goyal et al. (2017): else so many random layers leave noise.
            nn.init.constant_(layer.norm.get_parameter("weight"), 0.2)
    with fixed_arithmetic(1), torch.no_grad():
        network.train().embed(_noise(generator))


def _noise(generator: torch.Generator) -> Tensor:
    """Draw grey images with structures of all sizes, (16, 3, 96, 96)."""
    octaves = [torch.randn(16, 1, side, side, generator=generator) for side in (3, 6, 12, 24, 48)]
    coarse = [nn.functional.interpolate(octave, size=96, mode="bilinear") for octave in octaves]
    fine = torch.randn(16, 1, 96, 96, generator=generator)
    return (sum(coarse) + fine).expand(-1, 3, -1, -1)


def _fetch() -> dict[str, Tensor]:
    """Return the published weights, from torch.hub's folder or from the net."""
    try:
        return torch.hub.load_state_dict_from_url(
            URL, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(
            f'weights = "imagenet" cannot be fetched from {URL} ({error}): connect to the internet '
            f"once, or put that file into {folder}, or give its path."
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code from it."""
    try:
        if path.suffix in (".pth", ".pt"):
            return torch.load(path, map_location="cpu", weights_only=True)
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise InputError(
            f"weights {path} cannot be read ({error.strerror or error}): give a file (safetensors "
            'or .pth), "imagenet", or none.'
        ) from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise InputError(
            f"weights {path} are not a file of tensors alone ({reason}): give a state dict as "
            "safetensors or .pth."
        ) from error


def _adopt(network: EfficientNetB3, state: object, name: str) -> None:
    """Load a state dict; say in one sentence where it does not fit."""
    expected = network.state_dict()
    given = state if isinstance(state, dict) else {}
    shapes = {key: tuple(value.shape) for key, value in given.items() if isinstance(value, Tensor)}
    # A classifier for other classes is no matter: features are taken before it.
    fits = {key for key, value in expected.items() if shapes.get(key) == tuple(value.shape)}
    wrong = [key for key in expected if key not in fits and not key.startswith("classifier")]
    if wrong:
        found = f"{wrong[0]} is {shapes[wrong[0]]}" if wrong[0] in shapes else f"no {wrong[0]}"
        raise InputError(
            f"weights {name} do not fit EfficientNet-B3 ({found}; {len(wrong)} of {len(expected)} "
            "entries are missing or of other shapes): give a state dict of torchvision's "
            "efficientnet_b3."
        )
    network.load_state_dict({**expected, **{key: given[key] for key in fits}})


@dataclass(frozen=True)
class FeatureExtractor:
    """How cells are shown to the network."""

    bands: tuple[int, ...]
    """Positions of one band, which is shown as grey, or of three."""
    scaling: Normalisation
    """From raw values to the network's input."""
    size: int
    """Rows and columns of the picture."""
    batch_size: int
    """Cells at once on a GPU."""
    device: str

    def describe(
        self, images: NDArray, usable: NDArray[np.bool_], network: EfficientNetB3
    ) -> NDArray[np.float32]:
        """Return the features (n, 1536) of raw images (n, band, row, col); NaN where not usable."""
        usable = usable.ravel()
        if images.dtype.kind == "f":
            usable = usable & ~np.isnan(images[:, self.bands]).any((1, 2, 3))
        features = np.full((len(images), FEATURES), np.nan, np.float32)
        features[usable] = self.see(images[usable], network)
        return features

    def see(self, images: NDArray, network: EfficientNetB3) -> NDArray[np.float32]:
        """Return the features of raw images (n, band, row, col) → (n, 1536)."""
        device = pick_device(self.device)
        step = 1
        if device.type != "cpu":
            network, step = _placed(network, device), self.batch_size
        batch = torch.zeros((step, len(self.bands), *images.shape[2:]), device=device)
        features = np.empty((len(images), FEATURES), np.float32)
        with fixed_arithmetic(1), torch.inference_mode():
            for start in range(0, len(images), step):
                raw = np.ascontiguousarray(images[start : start + step, self.bands])
                batch[: len(raw)] = self.scaling.unit(torch.from_numpy(raw).to(device))
                seen = functional.normalize(network.embed(self._picture(batch)))
                features[start : start + step] = seen[: len(raw)].cpu().numpy()
        return features

    def _picture(self, batch: torch.Tensor) -> torch.Tensor:
        """Resize images with white = 1; (B, 1 or 3, row, col) → (B, 3, size, size)."""
        resized = functional.interpolate(
            batch, (self.size, self.size), mode="bicubic", align_corners=False, antialias=True
        )
        return self.scaling.centre(resized.clamp(0, 1).expand(-1, 3, -1, -1))


@lru_cache(maxsize=1)
def _placed(network: EfficientNetB3, device: torch.device) -> EfficientNetB3:
    """Copy a network to a device, once per process."""
    return copy.deepcopy(network).to(device)


def scene_features(
    source: xr.Dataset | xr.DataArray,
    *,
    weights: str | Path | None = None,
    cell_size: float | CellGrid | None = None,
    bands: Sequence[int] | None = None,
    white: float | None = None,
    size: int = PICTURE_SIDE,
    batch_size: int = 32,
    device: str = "auto",
    seed: int = 0,
) -> xr.DataArray:
    """Describe what every cell looks like by 1536 features of EfficientNet-B3.

    Parameters
    ----------
    source : Dataset or DataArray
        Cells with ``images`` (cell, band, row, col), as `popdask.imagery.cutting.cut_cells` gives
        them, seen with their ring if they have one; or a mosaic (band, y, x) or (y, x) with a CRS
        and a whole number of pixels in each cell.
    weights : None, "imagenet", str or Path, optional
        None for a random network, which distinguishes textures; "imagenet" for the published
        weights, fetched once; or a file of them, as `load_efficientnet` says.
    cell_size : float or CellGrid, optional
        Of a mosaic: the side of a cell in units of its CRS, on the grid from its origin; or the
        grid.
    bands : sequence of int, optional
        Which bands to show, by position from 0: one, as grey, or three. By default all.
    white : float, optional
        The value that is white; the largest of an integer type, 1 for floats. What is brighter is
        shown as white.
    size : int, optional
        Rows and columns that a cell is resized to; the published weights know 300.
    batch_size : int, optional
        Cells that pass through the network at once on a GPU.
    device : str, optional
        A torch device, or "auto": a GPU where the worker has one.
    seed : int, optional
        Of a random network.

    Returns
    -------
    DataArray of float32, (cell, feature) or (y, x, feature)
        Lazy, with the coordinates of the cells, or of the whole cells in the mosaic, north up. Each
        cell's features have length 1; NaN where a pixel of the cell has no data.

    Raises
    ------
    InputError
        If the bands to show are neither one nor three, the mosaic does not fit the grid, or a
        setting is out of range; on computing, if the weights cannot be read.

    Notes
    -----
    Sellebjerg et al., Population Estimation, group scenes by these features (Tan and Le 2019). The
    same to the bit under any chunking, on one kind of machine and device. A task holds one chunk of
    cells, or a square of up to 8 × 8 of the mosaic's; the network is one key of the graph. About
    0.1 s per cell on one CPU core.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> grid = CellGrid(100)
    >>> image = xr_zeros(grid.geobox(range(3), range(4), pixels=20), "uint8", chunks=(20, 20)) + 9
    >>> dict(scene_features(image, cell_size=100, size=32).sizes)
    {'y': 3, 'x': 4, 'feature': 1536}
    """
    _check_settings(size, batch_size)
    network = delayed(load_efficientnet, pure=True)(weights, seed=seed)
    if isinstance(source, xr.Dataset):
        images = source["images"].transpose("cell", "band", "row", "col")
        eye = _eye(images.sizes["band"], images.dtype, bands, white, size, batch_size, device)
        features = _of_cells(source, images, eye, network)
    else:
        if cell_size is None:
            raise InputError(
                "cell_size is not given; expected the side of a cell, because a mosaic does not "
                "say it: give it in units of the mosaic's CRS, such as 100"
            )
        image = as_bands(source)
        lattice = find_lattice(image, as_grid(cell_size, image.rio.crs))
        eye = _eye(image.sizes["band"], image.dtype, bands, white, size, batch_size, device)
        features = _of_mosaic(image, lattice, eye, network)
    attrs = {"long_name": "what the cell looks like", "units": "1"}
    return features.assign_attrs(attrs, weights=str(weights or f"random, seed {seed}"))


def _check_settings(size: int, batch_size: int) -> None:
    for name, value, least in (("size", size, 32), ("batch_size", batch_size, 1)):
        if not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name} is {value!r}; expected a whole number from {least} up")


def _eye(
    count: int,
    dtype: DTypeLike,
    bands: Sequence[int] | None,
    white: float | None,
    size: int,
    batch_size: int,
    device: str,
) -> FeatureExtractor:
    chosen = tuple(range(count)) if bands is None else tuple(int(band) for band in bands)
    if len(chosen) not in (1, 3) or not all(0 <= band < count for band in chosen):
        raise InputError(
            f"bands {chosen} of {count} are to be shown; expected one of them, or three: choose by "
            "position from 0, such as bands=(0, 1, 2)"
        )
    scaling = Normalisation(Normalisation.half(dtype, white=white).white, MEAN, STD)
    return FeatureExtractor(chosen, scaling, int(size), int(batch_size), device)


def _of_cells(
    cells: xr.Dataset, images: xr.DataArray, eye: FeatureExtractor, network: Delayed
) -> xr.DataArray:
    """Describe cells chunk by chunk."""
    pixels = as_dask(images.data, (CHUNK_CELLS, -1, -1, -1))
    pixels = pixels.rechunk((pixels.chunks[0], -1, -1, -1))
    whole = da.ones(len(pixels), dtype="float32")
    if "covered" in cells:
        whole = da.asarray(cells["covered"].data)
    usable = (whole == 1).rechunk((pixels.chunks[0],))[:, None, None, None]
    features = da.map_blocks(
        eye.describe,
        pixels,
        usable,
        network=network,
        drop_axis=[1, 2, 3],
        new_axis=[1],
        chunks=(pixels.chunks[0], (FEATURES,)),
        meta=np.empty((0, 0), np.float32),
    )
    kept = ("cell_size", "resolution", "context", "origin")
    attrs = {name: cells.attrs[name] for name in kept if name in cells.attrs}
    coords = {name: coord for name, coord in cells.coords.items() if set(coord.dims) <= {"cell"}}
    return xr.DataArray(features, coords, ("cell", "feature"), name="features", attrs=attrs)


def _of_mosaic(
    image: xr.DataArray, lattice: Lattice, eye: FeatureExtractor, network: Delayed
) -> xr.DataArray:
    """Describe the whole cells of a mosaic, square of the grid by square."""
    p, side = lattice.pixels, block_side(lattice.pixels)
    down, east = lattice.inside
    if not (len(down) and len(east)):
        raise InputError(
            f"the mosaic of {lattice.height} × {lattice.width} pixels holds no whole cell of "
            f"{lattice.grid.label}; expected at least one: use smaller cells or a larger mosaic"
        )
    inner = image.isel(
        y=slice(down.start * p - lattice.top, down.stop * p - lattice.top),
        x=slice(east.start * p - lattice.left, east.stop * p - lattice.left),
    )
    chunks = tuple(cut_at_multiples(cells.start, cells.stop, side) for cells in (down, east))
    pixels = tuple(tuple(n * p for n in axis) for axis in chunks)
    features = da.map_blocks(
        _mosaic_block,
        as_dask(inner.data).rechunk((-1, *pixels)),
        valid_pixels(inner, nodata_of(image)).rechunk(pixels)[None],
        eye=eye,
        network=network,
        step=p,
        drop_axis=[0],
        new_axis=[2],
        chunks=(*chunks, (FEATURES,)),
        meta=np.empty((0, 0, 0), np.float32),
    )
    grid = lattice.grid
    norths = range(-down.stop, -down.start)
    attrs = {"cell_size": grid.size, "origin": list(grid.origin), "resolution": grid.size / p}
    coords = xr_coords(grid.geobox(norths, east), dims=("y", "x"))
    dims = ("y", "x", "feature")
    return xr.DataArray(features, coords, dims, name="features", attrs=attrs | {"context": 0})


def _mosaic_block(
    block: NDArray,
    valid: NDArray[np.bool_],
    eye: FeatureExtractor,
    network: EfficientNetB3,
    step: int,
) -> NDArray[np.float32]:
    """Describe the cells of step × step pixels in (band, rows, columns) → (y, x, 1536)."""
    band, rows, cols = block.shape
    y, x = rows // step, cols // step
    cells = block.reshape(band, y, step, x, step).transpose(1, 3, 0, 2, 4)
    whole = valid.reshape(y, step, x, step).all((1, 3))
    flat = cells.reshape(y * x, band, step, step)
    return eye.describe(flat, whole.ravel(), network).reshape(y, x, FEATURES)
