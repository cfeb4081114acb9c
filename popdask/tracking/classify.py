"""Classes of cells: the nearest centre, held through time, and how centres are fitted.

An argmin flips on the last bit, so distances are summed row by row in a fixed order: the classes
depend on the latents and the centres, never on how rows are cut into blocks.

Latents are projected onto axes: each divided by its standard deviation or, given the encoder, so
that they lie as far apart as the windows they stand for. One random sample of cells is grouped;
every other cell then takes the class of its nearest centre. By the original's rule this is Lloyd's
k-means (1982), which Dask-ML runs from where ten k-means++ starts (Arthur & Vassilvitskii 2007) on
a small part of the sample ended best. Many ways to lay k centres are nearly as good as each other,
and another fit of the encoder takes another. Bisecting k-means (Steinbach, Karypis & Kumar 2000)
splits one class in two, that which lowers the sum of squares most, until there are k: its choices
are few and clear.

The sample is cut into chunks of its own and the fit runs on one thread in one place: the classes
depend on the latents, never on the caller's chunks or workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import dask
import dask.array as da
import numba
import numpy as np
import pandas as pd
import safetensors.numpy
import xarray as xr
from dask.base import clone_key
from dask.graph_manipulation import bind
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from xarray import DataArray

from popdask._repr_html import html_card
from popdask.blocks.sampling import gather_cells, sample_cells
from popdask.errors import InputError
from popdask.io.conventions import flags
from popdask.validate import check_array, check_instance

if TYPE_CHECKING:
    from popdask.tracking.autoencoder import FittedEncoder

Method = Literal["kmeans", "bisecting"]


@numba.njit(cache=True, nogil=True)
def project(latents: NDArray, mean: NDArray, axes: NDArray, point: NDArray) -> None:
    """Project one row (latent,) onto the axes (latent, axis)."""
    point[:] = 0.0
    for j in range(len(latents)):
        away = latents[j] - mean[j]
        for a in range(len(point)):
            point[a] += away * axes[j, a]


@numba.njit(cache=True, nogil=True)
def nearest(
    latents: NDArray, mean: NDArray, axes: NDArray, centers: NDArray
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Find the nearest centre of every row of (n, latent), and its squared distance."""
    # The lowest class wins a tie; a row with NaN gets class −1 and distance NaN.
    n, (k, width) = len(latents), centers.shape
    columns = centers.T.copy()  # (axis, k): the classes side by side, so that they vectorise
    classes = np.full(n, -1, np.int16)
    squared = np.full(n, np.nan)
    point, distance = np.empty(width), np.empty(k)
    for i in range(n):
        project(latents[i], mean, axes, point)
        if np.isnan(point.sum()):
            continue
        distance[:] = 0.0
        for a in range(width):
            for c in range(k):
                distance[c] += (point[a] - columns[a, c]) ** 2
        best = 0
        for c in range(1, k):
            if distance[c] < distance[best]:
                best = c
        classes[i] = best
        squared[i] = distance[best]
    return classes, squared


@numba.njit(cache=True, nogil=True)
def held(
    latents: NDArray,
    before: NDArray[np.int16],
    mean: NDArray,
    axes: NDArray,
    centers: NDArray,
    hold: float,
) -> NDArray[np.int16]:
    """Keep the class before, −1 = none, unless the nearest centre is nearer by more than `hold`."""
    classes, squared = nearest(latents, mean, axes, centers)
    point = np.empty(axes.shape[1])
    for i in range(len(latents)):
        kept = before[i]
        if classes[i] < 0 or kept < 0 or classes[i] == kept:
            continue
        project(latents[i], mean, axes, point)
        distance = 0.0
        for a in range(len(point)):
            distance += (point[a] - centers[kept, a]) ** 2
        if np.sqrt(distance) - np.sqrt(squared[i]) <= hold:
            classes[i] = kept
    return classes


@dataclass(frozen=True, eq=False, repr=False)
class ClassModel:
    """Fitted classes: all that `classify` needs to know.

    Class 0 has the most cells of the sample, class 1 the next, and so on.

    Examples
    --------
    >>> from popdask.tracking.classify import fit_classes
    >>> fit_classes([[0.0], [0.1], [0.2], [9.0], [9.1]], k=2)
    ClassModel(2 classes of 1 latent, SSE 0.00...)
    """

    mean: NDArray[np.float64]
    """Mean of each latent over the sample, (latent,)."""

    axes: NDArray[np.float64]
    """What latents without their mean are multiplied by, (latent, axis): distances are measured
    along axes."""

    centers: NDArray[np.float64]
    """Centres of the classes along the axes, (k, axis)."""

    sse: float
    """Sum of the squared distances from the sample's cells to their centres, along the axes."""

    curve: pd.Series | None = None
    """The `sse` of every k that was tried, where k was chosen by the knee."""

    density: NDArray[np.float64] | None = None
    """People per km² of each class's cells in the sample, (k,), as `with_density` adds them."""

    @classmethod
    def of_nobody(cls, latents: int) -> ClassModel:
        """Make the one class of a raster in which no cell is to be classified."""
        nobody = np.zeros((1, latents))
        return cls(np.zeros(latents), np.eye(latents), nobody, 0.0, density=np.zeros(1))

    @property
    def k(self) -> int:
        """Number of classes."""
        return len(self.centers)

    def transform(self, latents: NDArray) -> NDArray[np.float64]:
        """Project latents (…, latent) onto the axes, (…, axis)."""
        return (latents - self.mean) @ self.axes

    def __repr__(self) -> str:
        return f"ClassModel({self._size()}, SSE {self.sse:.4g})"

    def _size(self) -> str:
        latents = len(self.mean)
        return f"{self.k} classes of {latents} latent{'s' if latents != 1 else ''}"

    def _repr_html_(self) -> str:
        """The classes, and the curve by which their number was chosen, as a notebook shows them."""
        curve, how = list[float](), "as asked"
        if self.curve is not None:
            curve, ks = self.curve.tolist(), self.curve.index
            how = f"the knee over {ks[0]} … {ks[-1]}"
        rows = {
            "fitted": self._size(),
            "number chosen": how,
            "SSE of the sample": f"{self.sse:,.4g}",
        }
        return html_card("ClassModel", rows, curve=curve)

    def to_bytes(self) -> bytes:
        """Write the model as safetensors; equal models give equal bytes.

        Examples
        --------
        >>> from popdask.tracking.classify import fit_classes
        >>> model = fit_classes(np.arange(8.0).reshape(4, 2), k=2)
        >>> ClassModel.from_bytes(model.to_bytes()).k
        2
        """
        arrays = {"mean": self.mean, "axes": self.axes, "centers": self.centers}
        arrays["sse"] = np.array([self.sse])
        if self.curve is not None:
            arrays["curve_k"] = self.curve.index.to_numpy(np.int64)
            arrays["curve_sse"] = self.curve.to_numpy(np.float64)
        if self.density is not None:
            arrays["density"] = self.density
        return safetensors.numpy.save({n: np.ascontiguousarray(a) for n, a in arrays.items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> ClassModel:
        """Read what `to_bytes` wrote."""
        arrays = safetensors.numpy.load(data)
        curve = None
        if "curve_k" in arrays:
            ks = pd.Index(arrays["curve_k"], name="k")
            curve = pd.Series(arrays["curve_sse"], ks, name="sse")
        sse, density = float(arrays["sse"][0]), arrays.get("density")
        # Files of before have the standard deviations.
        axes = arrays["axes"] if "axes" in arrays else np.diag(1 / arrays["scale"])
        return cls(arrays["mean"], axes, arrays["centers"], sse, curve, density)


def _rows(latents: NDArray | list[NDArray]) -> tuple[NDArray, tuple[int, ...]]:
    """Give the rows (n, latent) of a block, and the shape of its classes."""
    # Dask gives the only block along the latents in a list, and so not as a copy.
    (block,) = latents if isinstance(latents, list) else (latents,)
    return np.ascontiguousarray(block).reshape(-1, block.shape[-1]), block.shape[:-1]


def _classes(latents: NDArray | list[NDArray], **model: NDArray) -> NDArray[np.int16]:
    """Classify a block (…, latent)."""
    rows, shape = _rows(latents)
    return nearest(rows, **model)[0].reshape(shape)


def _held_block(
    latents: NDArray | list[NDArray], *past: NDArray[np.int16], hold: float, **model: NDArray
) -> NDArray[np.int16]:
    """Classify a block (y, x, latent) of one frame, given the classes of the frames before."""
    (rows, shape), before = _rows(latents), past[-1]
    for older in past[-2::-1]:
        before = np.where(before >= 0, before, older)
    classes = held(rows, np.ascontiguousarray(before).reshape(-1), hold=hold, **model)
    return classes.reshape(shape)


def classify(
    latent: DataArray, model: ClassModel, *, hold: float = 0.0, first: DataArray | None = None
) -> DataArray:
    """Give every cell the class of its nearest centre.

    Parameters
    ----------
    latent : DataArray, (…, y, x, latent)
        NaN = no data; NumPy or Dask.
    model : ClassModel
        From `fit_classes`.
    hold : float, optional
        How firmly a cell holds its class: it keeps that of the frame before unless another centre
        is nearer by more than this, along the model's axes. Counts are noisy, and a
        cell half way between two centres changes class for no reason; 0.5 is enough to stop that.
        With 0 frames do not know of each other. A cell that has no data for a frame keeps its class
        behind it, and lets go of it after two.
    first : DataArray of int, (y, x) or (time, y, x), optional
        The classes of the frame before the first, or of the two before, where frames are appended.

    Returns
    -------
    DataArray of int16, (…, y, x)
        Class from 0 to k − 1, −1 = no data; lazy where `latent` is, block by block, so that Dask
        fuses it with the encoding and whole latents are never held.

    Raises
    ------
    InputError
        If the model was fitted to another number of latents, `hold` is negative, or `first` does
        not lie on the grid.

    Notes
    -----
    Classes are held forward in time alone, so that an appended frame changes nothing before it.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from popdask.tracking.classify import fit_classes
    >>> model = fit_classes([[0.0], [0.1], [0.2], [9.0], [9.1]], k=2)
    >>> latent = xr.DataArray([[[8.0], [np.nan], [1.0]]], dims=("y", "x", "latent"))
    >>> classify(latent, model).values.tolist()
    [[1, -1, 0]]
    >>> classify(latent * 0.6, model, hold=0.5, first=xr.zeros_like(latent[..., 0], "int16")).values
    array([[ 0, -1,  0]], dtype=int16)
    """
    check_array("latent", latent, "latent", hint="encode makes it")
    check_instance("model", model, ClassModel, "fit_classes")
    latent = latent.transpose(..., "latent")
    if latent.sizes["latent"] != len(model.mean):
        raise InputError(
            f"latent has {latent.sizes['latent']} values per cell, expected the "
            f"{len(model.mean)} that the classes were fitted to"
        )
    settings = {"mean": model.mean, "axes": model.axes, "centers": model.centers}
    if hold:
        found = _hold(latent, first, hold, settings)
    elif isinstance(latent.data, da.Array):
        axes = tuple(range(latent.ndim))
        meta: NDArray = np.empty((0,) * (latent.ndim - 1), np.int16)
        whole = latent.data.rechunk({axes[-1]: -1})
        found = da.blockwise(
            _classes, axes[:-1], whole, axes, dtype=np.int16, meta=meta, **settings
        )
    else:
        found = _classes(latent.data, **settings)
    classes = latent.isel(latent=0, drop=True).copy(data=found).rename("classes")
    classes.attrs = {"long_name": "class of the cell, −1 = none", "units": "1"}
    classes.attrs |= class_flags(len(model.centers))
    return classes


def with_density(model: ClassModel, latent: NDArray, people: NDArray, area: NDArray) -> ClassModel:
    """Add how densely classes are settled, by cells with latents (n, latent), people and km²."""
    classes = nearest(latent, model.mean, model.axes, model.centers)[0]
    sums, km2 = (np.bincount(classes, of, model.k) for of in (people, area))
    return replace(model, density=np.divide(sums, km2, out=np.full(model.k, np.nan), where=km2 > 0))


def without_land(classes: DataArray, model: ClassModel, min_density: float) -> DataArray:
    """Take the cells out (−1) whose class holds fewer people per km²: land between places."""
    if model.density is None:
        raise InputError(
            "the classes have no density; expected a model of with_density; fit them again, or "
            "give min_density=0"
        )
    number = np.append(np.where(model.density < min_density, -1, np.arange(model.k)), -1)
    # −1 reads the last entry
    return xr.apply_ufunc(
        number.astype(np.int16).take,
        classes,
        dask="parallelized",
        output_dtypes=[np.int16],
        keep_attrs=True,
    )


def class_flags(k: int) -> dict[str, Any]:
    """Name the codes of k classes, as CF does."""
    return flags(range(k), [f"class {code}" for code in range(k)])


def _hold(
    latent: DataArray, first: DataArray | None, hold: float, model: dict[str, NDArray]
) -> NDArray | da.Array:
    """Classify frame after frame, each by the one before it: one task for each block of a frame."""
    _check_hold(latent, first, hold)
    array, lazy = latent.data, isinstance(latent.data, da.Array)
    if lazy:
        array = array.rechunk({-1: -1} if latent.ndim == 3 else {0: 1, -1: -1})
    frames = array[None] if latent.ndim == 3 else array
    past = _past(frames, first)
    meta: NDArray = np.empty((0, 0), np.int16)
    found: list[Any] = []
    for frame in frames:
        if lazy:
            frame = _after(frame, past[-1]) if found else frame
            known = [part for classes in past for part in (classes, "yx")]
            classes = da.blockwise(
                _held_block, "yx", frame, "yxl", *known, dtype=np.int16, meta=meta,
                hold=hold, **model,
            )  # fmt: skip
        else:
            classes = _held_block(frame, *past, hold=hold, **model)
        found.append(classes)
        past = [*past, classes][-REMEMBERED:]
    classes = da.stack(found) if lazy else np.stack(found)
    return classes[0] if latent.ndim == 3 else classes


def _past(frames: Any, first: DataArray | None) -> list[Any]:
    """List the classes (y, x) before the first of the frames (time, y, x, latent)."""
    if first is None:
        known: Any = np.full((1, *frames.shape[1:3]), -1, np.int16)
    else:
        known = first.transpose(..., "y", "x").data.astype(np.int16)
        known = known[None] if first.ndim == 2 else known
    if isinstance(frames, da.Array):
        known = da.asarray(known).rechunk((1, *frames.chunks[1:3]))
    return [*known][-REMEMBERED:]


def _after(frame: da.Array, before: da.Array) -> da.Array:
    """The frame, computed when that before it is: else latents of all wait for each other."""
    bound = bind(frame, before, seed=before.name)
    for name, layer in frame.dask.layers.items():  # some forget which workers they ask for
        copied = bound.dask.layers.get(clone_key(name, seed=before.name))
        if copied is not None and layer.annotations:
            copied.annotations = layer.annotations
    return bound


def _check_hold(latent: DataArray, first: DataArray | None, hold: float) -> None:
    """Refuse what no class can be held by."""
    if not hold > 0:
        raise InputError(f"hold is {hold}; expected 0 or a distance of latents such as 0.5")
    if latent.dims not in (("y", "x", "latent"), ("time", "y", "x", "latent")):
        raise InputError(
            f"latent has the dimensions {latent.dims}; expected (time, y, x, latent), for classes "
            "are held from frame to frame; transpose it, or give hold=0"
        )
    if first is not None and (
        first.dims not in (("y", "x"), ("time", "y", "x"))
        or first.shape[-2:] != latent.shape[-3:-1]
    ):
        raise InputError(
            f"first has (dimensions, shape) {first.dims, first.shape}; expected ('y', 'x') and "
            f"{latent.shape[-3:-1]}: give the classes of the one frame before, or of two"
        )


REMEMBERED = 2  # frames that a cell looks back for its class: one may lack data
ROWS = 10_000
STARTS = 10
SPLITS = 5  # starts of a split in two, of which the best is taken
TO_THE_END = 10_000  # iterations: so many that a split stands still before


def _standardise(sample: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each latent; 1 for one that is constant but for rounding."""
    from dask_ml.preprocessing import StandardScaler  # a second for a worker, which fits nothing

    scaler = StandardScaler().fit(da.from_array(sample, chunks=(ROWS, -1), name=False))
    rounding = len(sample) * np.finfo(float).eps * np.abs(scaler.mean_)
    return scaler.mean_, np.where(np.sqrt(scaler.var_) <= rounding, 1.0, scaler.scale_)


def _assign(
    z: NDArray[np.float64], centers: NDArray[np.float64]
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Nearest centre and squared distance of rows that lie on the axes already."""
    width = z.shape[1]
    return nearest(z, np.zeros(width), np.eye(width), centers)


def _kmeans(
    z: NDArray[np.float64], tried: Sequence[int], seed: int
) -> dict[int, NDArray[np.float64]]:
    """Fit so many centres to projected rows: ten starts on few rows, the best of them on all."""
    from dask_ml.cluster import KMeans
    from sklearn import cluster

    few = np.random.default_rng(seed).permutation(len(z))[:ROWS]
    rows, centers = da.from_array(z, chunks=(ROWS, -1), name=False), {}
    for k in tried:
        start = cluster.KMeans(k, n_init=STARTS, random_state=seed).fit(z[few]).cluster_centers_
        centers[k] = KMeans(k, init=start).fit(rows).cluster_centers_
    return centers


def _bisecting(
    z: NDArray[np.float64], tried: Sequence[int], seed: int
) -> dict[int, NDArray[np.float64]]:
    """Fit so many centres to projected rows: the split that helps most, again and again."""
    steps = _splits(z, max(tried), seed)
    return {
        len(parts): np.stack([part.mean(axis=0) for part in parts])
        for parts in steps
        if len(parts) in tried
    }


def _splits(
    z: NDArray[np.float64], most: int, seed: int
) -> Iterator[tuple[NDArray[np.float64], ...]]:
    """Yield the parts of projected rows: 1, 2 and so on to `most`, by one split after another."""
    # scikit-learn's BisectingKMeans takes the class with the largest sum, whatever a split of it
    # gains; of two with sums alike each fit of an encoder has another.
    parts, splits = [z], list[_Split]()
    yield (z,)
    while len(parts) < most:
        splits += [_split(part, seed) for part in parts[len(splits) :]]
        best = max(range(len(parts)), key=lambda number: splits[number].gain)
        if not splits[best].halves:
            raise InputError(
                f"the sample has rows that differ by no more than rounding, and falls into "
                f"{len(parts)} classes; expected {most}; ask for fewer classes or a larger sample"
            )
        del parts[best]
        parts += splits.pop(best).halves
        yield tuple(parts)


class _Split(NamedTuple):
    gain: float
    """How much the sum of squares is less for it."""
    halves: tuple[NDArray[np.float64], ...]


def _split(part: NDArray[np.float64], seed: int) -> _Split:
    """Split projected rows in two; such as are all the same stay, but for rounding."""
    from sklearn.cluster import KMeans

    if np.ptp(part, axis=0).max() <= np.finfo(float).eps * np.abs(part).max():
        return _Split(-np.inf, ())
    fit = KMeans(2, n_init=SPLITS, tol=0, max_iter=TO_THE_END, random_state=seed)
    first = fit.fit_predict(part) == 0
    halves = part[first], part[~first]
    return _Split(_scatter(part) - _scatter(halves[0]) - _scatter(halves[1]), halves)


def _scatter(part: NDArray[np.float64]) -> float:
    """The sum of squared distances from projected rows to their mean."""
    return float(np.square(part - part.mean(axis=0)).sum())


METHODS = {"kmeans": _kmeans, "bisecting": _bisecting}


def _fit(
    z: NDArray[np.float64], tried: Sequence[int], method: Method, seed: int
) -> dict[int, NDArray[np.float64]]:
    """Fit so many centres to projected rows, those with most cells first."""
    fitted = METHODS[method](z, tried, seed)
    for k, centers in fitted.items():
        cells = np.bincount(_assign(z, centers)[0], minlength=k)
        fitted[k] = centers[np.lexsort((*centers.T[::-1], -cells))]
    return fitted


def fit_classes(
    sample: ArrayLike,
    k: int | Literal["auto"] = 10,
    *,
    seed: int = 0,
    ks: Iterable[int] = range(2, 21),
    encoder: FittedEncoder | None = None,
    method: Method = "kmeans",
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
    encoder : FittedEncoder, optional
        Who wrote the latents: they lie as far apart then as the windows they stand for
        (`FittedEncoder.window_axes`). Without it each is divided by its standard deviation, as in
        the original; fits of an encoder that describe windows equally well then give other classes.
    method : {"kmeans", "bisecting"}, optional
        How centres are fitted: together (Lloyd 1982), as in the original, or by splitting one class
        in two, that which lowers the sum of squares most, until there are `k` (Steinbach, Karypis
        and Kumar 2000). In the end that sum is some percent larger; other fits of the encoder give
        nearly the same.

    Returns
    -------
    ClassModel
        The same for the same rows and seed, on any cluster or none.

    Raises
    ------
    InputError
        If the sample is not a finite matrix or has fewer distinct rows than classes, if `k` is
        not a positive number, if there is no such `method`, or if `encoder` is something else.

    See Also
    --------
    kmeans : draws the cells, fits and classifies, in one go.
    popdask.blocks.sampling.sample_cells : draws cells at random among those of a mask.
    popdask.blocks.sampling.gather_cells : reads the latents of these cells.

    Notes
    -----
    Eager, on one thread of the calling process: about 2 s for 100,000 rows of 16 latents and
    k = 10, half a minute for ``k="auto"``.

    Examples
    --------
    >>> import numpy as np
    >>> villages = np.array([[0.0], [0.1], [0.2], [9.0], [9.1]])
    >>> model = fit_classes(villages, k=2)
    >>> (model.centers / model.axes + model.mean).round(2).ravel().tolist()
    [0.1, 9.05]
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    if encoder is not None:
        from popdask.tracking.autoencoder import FittedEncoder

        check_instance("encoder", encoder, FittedEncoder, "fit_autoencoder")
    if np.ndim(sample) != 2:
        raise InputError(
            f"the sample has shape {np.shape(sample)}; expected rows (n, latent), one for each "
            "cell; draw them with popdask.blocks.sampling, as in gather_cells(latent, "
            "sample_cells(mask, 100_000)), or give latent to kmeans, which draws them itself"
        )
    rows = np.array(sample, np.float64, order="C")
    tried = sorted(set(ks)) if k == "auto" else [k]
    _check(rows, tried)
    if encoder is not None and rows.shape[1] != encoder.config.latent:
        raise InputError(
            f"the sample has {rows.shape[1]} latents; expected the {encoder.config.latent} that "
            "the encoder writes; give the encoder that wrote them"
        )
    # A cluster would neither help with so small a sample nor add its sums in a promised order.
    with threadpool_limits(1), dask.config.set(scheduler="synchronous"):
        mean, scale = _standardise(rows)
        axes = np.diag(1 / scale) if encoder is None else encoder.window_axes(rows)
        z = (rows - mean) @ axes
        if encoder is not None:  # other latents may stand for the same window
            _check_distinct(z, max(tried))
        centers = _fit(z, tried, method, seed)
    sse = [_assign(z, centers[number])[1].sum() for number in tried]
    curve = pd.Series(sse, pd.Index(tried, name="k"), name="sse")
    best = knee(curve) if k == "auto" else tried[0]
    kept = curve if k == "auto" else None
    return ClassModel(mean, axes, centers[best], float(curve[best]), kept)


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
    _check_distinct(rows, int(max(numbers)))


def _check_distinct(z: NDArray[np.float64], k: int) -> None:
    """Refuse rows that are too much alike for so many classes."""
    distinct = len(np.unique(z, axis=0))
    if distinct < k:
        raise InputError(
            f"the sample has {distinct} distinct rows for {k} classes, "
            "ask for fewer classes or a larger sample"
        )


def knee(curve: pd.Series) -> int:
    """Find the k beyond which more classes help little."""
    k = curve.index.to_numpy(np.float64)
    sse = curve.to_numpy()
    line = sse[0] + (sse[-1] - sse[0]) * (k - k[0]) / max(k[-1] - k[0], 1)
    return int(curve.index[int(np.argmax(line - sse))])


def sse_curve(
    latent: DataArray,
    ks: Iterable[int] = range(2, 21),
    *,
    sample: int = 100_000,
    seed: int = 0,
    encoder: FittedEncoder | None = None,
    method: Method = "kmeans",
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
    encoder : FittedEncoder, optional
        Who wrote the latents, as for `fit_classes`.
    method : {"kmeans", "bisecting"}, optional
        How centres are fitted, as for `fit_classes`.

    Returns
    -------
    Series of float64, indexed by k
        Sum of squared distances Σd² from the sample's cells to their centres, along the axes.

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
    rows = _draw(latent, sample, seed)
    curve = fit_classes(rows, "auto", seed=seed, ks=ks, encoder=encoder, method=method).curve
    assert curve is not None
    return curve


def kmeans(
    latent: DataArray,
    k: int | Literal["auto"] = 10,
    *,
    seed: int = 0,
    sample: int = 100_000,
    hold: float = 0.0,
    encoder: FittedEncoder | None = None,
    method: Method = "kmeans",
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
    encoder : FittedEncoder, optional
        Who wrote the latents, as for `fit_classes`.
    method : {"kmeans", "bisecting"}, optional
        How centres are fitted, as for `fit_classes`.

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
    rows = _draw(latent, sample, seed)
    model = fit_classes(rows, k, seed=seed, encoder=encoder, method=method)
    return classify(latent, model, hold=hold)


def _draw(latent: DataArray, sample: int, seed: int) -> NDArray:
    """Latents of cells drawn at random among those with data, (n, latent)."""
    check_array("latent", latent, "y", "x", "latent", hint="encode makes it")
    with_data = xr.ufuncs.isfinite(latent).all("latent")
    return gather_cells(latent, sample_cells(with_data, sample, seed=seed))
