"""Classes of cells that look alike: k-means on standardised latents.

The latents are standardised and grouped by Lloyd's k-means (1982), which Dask-ML runs on one random
sample of cells; every other cell then takes the class of its nearest centre. Dask-ML starts where
ten k-means++ starts (Arthur & Vassilvitskii 2007) on a small part of the sample ended best.

The sample is cut into chunks of its own and the fit runs on one thread in one place: the classes
depend on the latents, never on the caller's chunks or workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask_ml.cluster import KMeans
from dask_ml.preprocessing import StandardScaler
from numpy.typing import ArrayLike, NDArray
from sklearn import cluster
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from xarray import DataArray

from popdask.arguments import check_array
from popdask.errors import InputError
from popdask.tracking._nearest import nearest
from popdask.tracking.classes import ClassModel, classify
from popdask.tracking.sampling import gather_cells, sample_cells

ROWS = 10_000
STARTS = 10


def _standardise(sample: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each latent; 1 for one that is constant but for rounding."""
    scaler = StandardScaler().fit(da.from_array(sample, chunks=(ROWS, -1), name=False))
    rounding = len(sample) * np.finfo(float).eps * np.abs(scaler.mean_)
    return scaler.mean_, np.where(np.sqrt(scaler.var_) <= rounding, 1.0, scaler.scale_)


def _assign(
    z: NDArray[np.float64], centers: NDArray[np.float64]
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Nearest centre and squared distance of rows that are standardised already."""
    width = z.shape[1]
    return nearest(z, np.zeros(width), np.ones(width), centers)


def _fit(z: NDArray[np.float64], k: int, seed: int) -> NDArray[np.float64]:
    """Fit k centres to standardised rows: ten starts on few rows, the best of them on all."""
    few = np.random.default_rng(seed).permutation(len(z))[:ROWS]
    start = cluster.KMeans(k, n_init=STARTS, random_state=seed).fit(z[few]).cluster_centers_
    rows = da.from_array(z, chunks=(ROWS, -1), name=False)
    centers = KMeans(k, init=start).fit(rows).cluster_centers_
    cells = np.bincount(_assign(z, centers)[0], minlength=k)
    return centers[np.lexsort((*centers.T[::-1], -cells))]


def fit_classes(
    sample: ArrayLike,
    k: int | Literal["auto"] = 10,
    *,
    seed: int = 0,
    ks: Iterable[int] = range(2, 21),
) -> ClassModel:
    """Fit classes to the latents of some cells.

    Parameters
    ----------
    sample : array_like of float, (n, latent)
        One row per cell, finite, in random order or not; `gather_cells` reads such rows from a
        raster of latents.
    k : int or "auto", optional
        Number of classes; ``"auto"`` takes the knee of the SSE curve over `ks`.
    seed : int, optional
        Seeds the starts.
    ks : iterable of int, optional
        The numbers of classes that ``k="auto"`` tries.

    Returns
    -------
    ClassModel
        The same for the same rows and seed, on any cluster or none.

    Raises
    ------
    InputError
        If the sample is not a finite matrix or has fewer distinct rows than classes, or if `k` is
        not a positive number.

    See Also
    --------
    kmeans : draws the cells, fits and classifies, in one go.
    popdask.tracking.sampling.sample_cells : draws cells at random among those of a mask.
    popdask.tracking.sampling.gather_cells : reads the latents of these cells.

    Notes
    -----
    Eager, on one thread of the calling process: about 2 s for 100,000 rows of 16 latents and
    k = 10, half a minute for ``k="auto"``.

    Examples
    --------
    >>> import numpy as np
    >>> villages = np.array([[0.0], [0.1], [0.2], [9.0], [9.1]])
    >>> model = fit_classes(villages, k=2)
    >>> (model.centers * model.scale + model.mean).round(2).ravel().tolist()
    [0.1, 9.05]
    """
    if np.ndim(sample) != 2:
        raise InputError(
            f"the sample has shape {np.shape(sample)}; expected rows (n, latent), one for each "
            "cell; draw them with popdask.tracking.sampling, as in gather_cells(latent, "
            "sample_cells(mask, 100_000)), or give latent to kmeans, which draws them itself"
        )
    rows = np.array(sample, np.float64, order="C")
    tried = sorted(set(ks)) if k == "auto" else [k]
    _check(rows, tried)
    # A cluster would neither help with so small a sample nor add its sums in a promised order.
    with threadpool_limits(1), dask.config.set(scheduler="synchronous"):
        mean, scale = _standardise(rows)
        z = (rows - mean) / scale
        centers = {number: _fit(z, number, seed) for number in tried}
    sse = [_assign(z, centers[number])[1].sum() for number in tried]
    curve = pd.Series(sse, pd.Index(tried, name="k"), name="sse")
    best = knee(curve) if k == "auto" else tried[0]
    kept = curve if k == "auto" else None
    return ClassModel(mean, scale, centers[best], float(curve[best]), kept)


def _check(rows: NDArray[np.float64], ks: Sequence[object]) -> None:
    """Refuse rows that cannot be grouped into so many classes."""
    if not np.isfinite(rows).all():
        raise InputError(
            f"the sample has {np.sum(~np.isfinite(rows))} values that are not finite; expected "
            "none; draw cells with data alone"
        )
    numbers = [k for k in ks if isinstance(k, int | np.integer) and k > 0]
    if not numbers or len(numbers) < len(ks):
        raise InputError(f'k is {list(ks)}, expected "auto" or a positive number of classes')
    distinct = len(np.unique(rows, axis=0))
    if distinct < max(numbers):
        raise InputError(
            f"the sample has {distinct} distinct rows for {max(numbers)} classes, "
            "ask for fewer classes or a larger sample"
        )


def knee(curve: pd.Series) -> int:
    """Find the k beyond which more classes help little.

    Parameters
    ----------
    curve : Series
        Falling SSE, indexed by rising k, as from `sse_curve`.

    Returns
    -------
    int
        The k whose point lies farthest below the straight line between the curve's two ends
        (Satopää et al. 2011, "Finding a 'kneedle' in a haystack"); the lowest on a tie.

    Examples
    --------
    >>> import pandas as pd
    >>> knee(pd.Series([100.0, 60.0, 20.0, 16.0, 12.0], index=[2, 3, 4, 5, 6]))
    4
    """
    k = curve.index.to_numpy(np.float64)
    sse = curve.to_numpy()
    line = sse[0] + (sse[-1] - sse[0]) * (k - k[0]) / max(k[-1] - k[0], 1)
    return int(curve.index[int(np.argmax(line - sse))])


def sse_curve(
    latent: DataArray, ks: Iterable[int] = range(2, 21), *, sample: int = 100_000, seed: int = 0
) -> pd.Series:
    """Measure how close k classes come to the latents, for several k.

    Parameters
    ----------
    latent : DataArray, (…, y, x, latent)
        NaN = no data; NumPy or Dask.
    ks : iterable of int, optional
        Numbers of classes.
    sample : int, optional
        Cells to fit on, drawn at random among those with data.
    seed : int, optional
        Seeds the sample and the starts.

    Returns
    -------
    Series of float64, indexed by k
        Sum of squared distances Σd² from the sample's cells to their centres, standardised.

    Raises
    ------
    InputError
        If the sample has fewer distinct rows than classes.

    Notes
    -----
    Eager, as `fit_classes`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> latent = xr.DataArray(np.eye(4).reshape(2, 2, 4), dims=("y", "x", "latent"))
    >>> sse_curve(latent, ks=[1, 4]).round(6).to_dict()
    {1: 16.0, 4: 0.0}
    """
    curve = fit_classes(_draw(latent, sample, seed), "auto", seed=seed, ks=ks).curve
    assert curve is not None
    return curve


def kmeans(
    latent: DataArray,
    k: int | Literal["auto"] = 10,
    *,
    seed: int = 0,
    sample: int = 100_000,
    hold: float = 0.0,
) -> DataArray:
    """Group the cells into k classes by their latents.

    Parameters
    ----------
    latent : DataArray, (…, y, x, latent)
        NaN = no data; NumPy or Dask.
    k : int or "auto", optional
        Number of classes; ``"auto"`` takes the knee of the SSE curve over k = 2…20.
    seed : int, optional
        Seeds the sample and the starts.
    sample : int, optional
        Cells to fit on, drawn at random among those with data.
    hold : float, optional
        How much nearer another centre must be for a cell to give up its class of the frame before,
        as for `classify`.

    Returns
    -------
    DataArray of int16, (…, y, x)
        Class from 0, the most frequent, to k − 1, −1 = no data; lazy where `latent` is.

    Raises
    ------
    InputError
        If the sample has fewer distinct rows than classes.

    Notes
    -----
    The fit is eager and reads the latents twice, to draw the cells and to gather their values:
    where computing them is dear, persist them, or give `fit_classes` rows that `gather_cells` has
    read, and then `classify`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> latent = xr.DataArray([[[8.0], [np.nan], [0.1], [0.0]]], dims=("y", "x", "latent"))
    >>> kmeans(latent, k=2).values.tolist()
    [[1, -1, 0, 0]]
    """
    model = fit_classes(_draw(latent, sample, seed), k, seed=seed)
    return classify(latent, model, hold=hold)


def _draw(latent: DataArray, sample: int, seed: int) -> NDArray:
    """Latents of cells drawn at random among those with data, (n, latent)."""
    check_array("latent", latent, "y", "x", "latent", hint="encode makes it")
    with_data = xr.ufuncs.isfinite(latent).all("latent")
    return gather_cells(latent, sample_cells(with_data, sample, seed=seed))
