"""Groups of cells that look alike, and views of them.

Ways to look at scene groups: as a map, as a table, as images of some cells.

Groups are a Dataset on cells or on a map, as `popdask.imagery.scenes.scene_groups` gives them.

Groups of cells that look alike, found without labels.

After Sellebjerg, Lorentsen, Møller-Jensen, Siddique and Hansen, Population Estimation: features of
EfficientNet-B3 (`scene_features`), brought to length 1, to 128 principal components and to 20
dimensions by UMAP (McInnes, Healy and Melville 2018), are grouped by KMeans and by HDBSCAN
(Campello, Moulavi and Sander 2013). A second UMAP, to two dimensions, is for looking at.

Principal components are found by Dask over all cells, in chunks of a fixed size; what follows works
on 128 numbers per cell, in one place and on one thread, so that a seed gives one answer.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask_ml.decomposition import PCA
from numpy.typing import NDArray
from odc.geo.xr import xr_coords
from sklearn.cluster import HDBSCAN, KMeans
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from popdask.errors import InputError
from popdask.imagery.cells import cells_grid
from popdask.imagery.cutting import cut_cells

PLACES = ("plot_x", "plot_y")


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
    chosen = table.loc[_scattered(table[list(PLACES)].to_numpy(), count)]
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


ROWS = 8192
STARTS = 10


@dataclass(frozen=True)
class GroupSettings:
    """How cells are grouped."""

    k: tuple[int, ...] = (3, 4, 5)
    """Numbers of groups of KMeans."""
    pca: int = 128
    """Principal components, at most."""
    dimensions: int = 20
    """Dimensions in which cells are grouped."""
    neighbours: int = 50
    """Cells that UMAP takes to be around each, itself among them."""
    min_dist: float = 0.05
    """How close UMAP may put cells."""
    epochs: int = 200
    """Of UMAP."""
    min_cluster_size: int = 500
    """Cells of a group of HDBSCAN, at least."""
    min_samples: int = 50
    """Cells around the core of a group of HDBSCAN, itself among them."""
    seed: int = 0
    """Of the principal components, UMAP and KMeans."""


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
    # Other chunks would draw other random projections; in float32, four iterations without
    # orthogonalisation between them lose all components but the first few.
    rows = rows.rechunk((ROWS, -1)).astype(np.float64)
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
        f"kmeans_{k}": KMeans(k, n_init=STARTS, random_state=settings.seed).fit_predict(space)
        for k in settings.k
    }
    dense = HDBSCAN(settings.min_cluster_size, min_samples=settings.min_samples, copy=True)
    columns["hdbscan"] = dense.fit_predict(space)
    places = umap(n_components=2, **common).fit_transform(reduced)
    return {name: _by_size(labels) for name, labels in columns.items()} | dict(
        zip(PLACES, places.T, strict=True)
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
