"""Fitted classes, and the class of every cell: that of its nearest centre, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import dask.array as da
import numpy as np
import pandas as pd
import safetensors.numpy
from numpy.typing import NDArray
from xarray import DataArray

from popdask.arguments import check_array, check_instance
from popdask.cards import card
from popdask.errors import InputError
from popdask.tracking._nearest import held, nearest


@dataclass(frozen=True, eq=False, repr=False)
class ClassModel:
    """Fitted classes: all that `classify` needs to know.

    Class 0 has the most cells of the sample, class 1 the next, and so on.

    Examples
    --------
    >>> from popdask.tracking.clustering import fit_classes
    >>> fit_classes([[0.0], [0.1], [0.2], [9.0], [9.1]], k=2)
    ClassModel(2 classes of 1 latent, SSE 0.00...)
    """

    mean: NDArray[np.float64]
    """Mean of each latent over the sample, (latent,)."""

    scale: NDArray[np.float64]
    """Standard deviation of each latent over the sample, (latent,); 1 where it is constant."""

    centers: NDArray[np.float64]
    """Centres of the classes in standardised latents, (k, latent)."""

    sse: float
    """Sum of the squared distances from the sample's cells to their centres, standardised."""

    curve: pd.Series | None = None
    """The `sse` of every k that was tried, where k was chosen by the knee."""

    @property
    def k(self) -> int:
        """Number of classes."""
        return len(self.centers)

    def __repr__(self) -> str:
        return f"ClassModel({self._size()}, SSE {self.sse:.4g})"

    def _size(self) -> str:
        latents = len(self.mean)
        return f"{self.k} classes of {latents} latent{'s' if latents != 1 else ''}"

    def _repr_html_(self) -> str:
        """The classes, and the curve by which their number was chosen, as a notebook shows them."""
        curve = [] if self.curve is None else self.curve.tolist()
        how = "as asked" if self.curve is None else f"the knee over {_span(self.curve.index)}"
        rows = {
            "fitted": self._size(),
            "number chosen": how,
            "SSE of the sample": f"{self.sse:,.4g}",
        }
        return card("ClassModel", rows, curve=curve)

    def to_bytes(self) -> bytes:
        """Write the model as safetensors; equal models give equal bytes.

        Examples
        --------
        >>> from popdask.tracking.clustering import fit_classes
        >>> model = fit_classes(np.arange(8.0).reshape(4, 2), k=2)
        >>> ClassModel.from_bytes(model.to_bytes()).k
        2
        """
        arrays = {"mean": self.mean, "scale": self.scale, "centers": self.centers}
        arrays["sse"] = np.array([self.sse])
        if self.curve is not None:
            arrays["curve_k"] = self.curve.index.to_numpy(np.int64)
            arrays["curve_sse"] = self.curve.to_numpy(np.float64)
        return safetensors.numpy.save({n: np.ascontiguousarray(a) for n, a in arrays.items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> ClassModel:
        """Read what `to_bytes` wrote."""
        arrays = safetensors.numpy.load(data)
        curve = None
        if "curve_k" in arrays:
            ks = pd.Index(arrays["curve_k"], name="k")
            curve = pd.Series(arrays["curve_sse"], ks, name="sse")
        sse = float(arrays["sse"][0])
        return cls(arrays["mean"], arrays["scale"], arrays["centers"], sse, curve)


def _span(numbers: pd.Index) -> str:
    return f"{numbers[0]} … {numbers[-1]}"


def _classes(
    latents: NDArray, *, mean: NDArray, scale: NDArray, centers: NDArray
) -> NDArray[np.int16]:
    """Classify a block (…, latent)."""
    rows = np.ascontiguousarray(latents).reshape(-1, latents.shape[-1])
    return nearest(rows, mean, scale, centers)[0].reshape(latents.shape[:-1])


def _classes_block(blocks: list[NDArray], **settings: NDArray) -> NDArray[np.int16]:
    """Classify a block that Dask gives as the only one along the latents, not as a copy."""
    (latents,) = blocks
    return _classes(latents, **settings)


def _held_block(
    latents: NDArray | list[NDArray], before: NDArray[np.int16], *, hold: float, **model: NDArray
) -> NDArray[np.int16]:
    """Classify a block (y, x, latent) of one frame, given the classes of the frame before."""
    (block,) = latents if isinstance(latents, list) else (latents,)
    rows = np.ascontiguousarray(block).reshape(-1, block.shape[-1])
    classes = held(rows, np.ascontiguousarray(before).reshape(-1), hold=hold, **model)
    return classes.reshape(block.shape[:-1])


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
        is nearer by more than this, in distances of standardised latents. Counts are noisy, and a
        cell half way between two centres changes class for no reason; 0.5 is enough to stop that.
        With 0 frames do not know of each other. A cell without data has no class to keep.
    first : DataArray of int, (y, x), optional
        The classes of the frame before the first, where frames are appended.

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
    >>> from popdask.tracking.clustering import fit_classes
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
    settings = {"mean": model.mean, "scale": model.scale, "centers": model.centers}
    if hold:
        found = _hold(latent, first, hold, settings)
    elif isinstance(latent.data, da.Array):
        axes = tuple(range(latent.ndim))
        meta: NDArray = np.empty((0,) * (latent.ndim - 1), np.int16)
        whole = latent.data.rechunk({axes[-1]: -1})
        found = da.blockwise(
            _classes_block, axes[:-1], whole, axes, dtype=np.int16, meta=meta, **settings
        )
    else:
        found = _classes(latent.data, **settings)
    classes = latent.isel(latent=0, drop=True).copy(data=found).rename("classes")
    classes.attrs = {"long_name": "class of the cell, −1 = none", "units": "1"}
    return classes


def _hold(
    latent: DataArray, first: DataArray | None, hold: float, model: dict[str, NDArray]
) -> NDArray | da.Array:
    """Classify frame after frame, each by the one before it: one task for each block of a frame."""
    _check_hold(latent, first, hold)
    array, lazy = latent.data, isinstance(latent.data, da.Array)
    if lazy:
        array = array.rechunk({-1: -1} if latent.ndim == 3 else {0: 1, -1: -1})
    frames = array[None] if latent.ndim == 3 else array
    before = np.full(frames.shape[1:3], -1, np.int16) if first is None else first.data
    before = before.astype(np.int16)
    if lazy:
        before = da.asarray(before).rechunk(frames.chunks[1:3])
    meta: NDArray = np.empty((0, 0), np.int16)
    found = []
    for frame in frames:
        if lazy:
            before = da.blockwise(
                _held_block, "yx", frame, "yxl", before, "yx", dtype=np.int16, meta=meta,
                hold=hold, **model,
            )  # fmt: skip
        else:
            before = _held_block(frame, before, hold=hold, **model)
        found.append(before)
    classes = da.stack(found) if lazy else np.stack(found)
    return classes[0] if latent.ndim == 3 else classes


def _check_hold(latent: DataArray, first: DataArray | None, hold: float) -> None:
    """Refuse what no class can be held by."""
    if not hold > 0:
        raise InputError(f"hold is {hold}; expected 0 or a distance of latents such as 0.5")
    if latent.dims not in (("y", "x", "latent"), ("time", "y", "x", "latent")):
        raise InputError(
            f"latent has the dimensions {latent.dims}; expected (time, y, x, latent), for classes "
            "are held from frame to frame; transpose it, or give hold=0"
        )
    if first is not None and (first.dims != ("y", "x") or first.shape != latent.shape[-3:-1]):
        raise InputError(
            f"first has (dimensions, shape) {first.dims, first.shape}; expected ('y', 'x') and "
            f"{latent.shape[-3:-1]}: give the classes of the one frame before"
        )
