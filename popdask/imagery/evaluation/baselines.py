"""What an estimate must beat: the mean, and regressions on brightness, edges and texture.

A network has seen something only if it does better than the number of people in the mean cell, and
than a straight line through a few figures of the cell's picture. Both are fitted on the training
cells and answer as the models do, in two stages: presence, and people where somebody seems to live.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from popdask.errors import InputError

FEATURES = (
    "mean",
    "spread",
    "darkest",
    "dark",
    "bright",
    "brightest",
    "edges",
    "edge_spread",
    "strong_edges",
    "edges_down_share",
    "texture_2",
    "texture_4",
    "texture_8",
    "unevenness",
)
"""The figures of each band, in their order."""

_BATCH = 512  # cells whose pixels are held at a time


class Baseline(Protocol):
    """Estimates people from pictures, as a pair of trained models does."""

    def predict(self, images: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give presence, a probability, and people (cell,) of images (cell, band, row, col)."""


@dataclass(frozen=True)
class MeanBaseline:
    """The same for every cell: the mean of the training cells.

    Examples
    --------
    >>> images = np.zeros((4, 1, 16, 16), np.uint8)
    >>> baseline = MeanBaseline.fit(images, np.array([0.0, 0.0, 3.0, 5.0]))
    >>> baseline.presence, baseline.people
    (0.5, 2.0)
    """

    presence: float
    """Share of the training cells that are inhabited."""
    people: float
    """People per training cell."""

    @classmethod
    def fit(cls, images: Any, people: NDArray[np.floating]) -> MeanBaseline:
        """Take the mean of cells.

        Parameters
        ----------
        images : array, (cell, band, row, col)
            Not looked at.
        people : ndarray of float, (cell,)
            Their people.

        Returns
        -------
        MeanBaseline

        Raises
        ------
        InputError
            If there is no cell, or a cell whose people are not known.
        """
        _check(people)
        return cls(float((people > 0).mean()), float(people.mean()))

    def predict(self, images: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Answer the same for every cell.

        Parameters
        ----------
        images : array, (cell, band, row, col)
            Only their number counts.

        Returns
        -------
        presence, people : ndarray of float32, (cell,)
            The share of inhabited cells, and the mean of the people.
        """
        count = len(images)
        return np.full(count, self.presence, np.float32), np.full(count, self.people, np.float32)


@dataclass(frozen=True)
class FeatureBaseline:
    """Logistic and linear regression on :func:`picture_features`.

    The linear one is fitted on inhabited cells and asked where the logistic one sees people.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> people = np.repeat([0.0, 8.0], 20)
    >>> images = rng.normal(100, 2 + people[:, None, None, None], (40, 1, 16, 16))
    >>> presence, estimate = FeatureBaseline.fit(images, people).predict(images)
    >>> np.array_equal(presence > 0.5, people > 0), estimate.round().max()
    (True, np.float32(8.0))
    """

    presence: Pipeline
    """Standardised features to the probability that somebody lives there."""
    people: Pipeline
    """Standardised features to people."""
    threshold: float = 0.5
    """People are counted where the probability is above it."""

    @classmethod
    def fit(
        cls, images: Any, people: NDArray[np.floating], *, threshold: float = 0.5
    ) -> FeatureBaseline:
        """Fit both regressions on cells.

        Parameters
        ----------
        images : array, (cell, band, row, col)
            Brightness on the scale of the sensor; NumPy or Dask, read in batches of 512 cells.
        people : ndarray of float, (cell,)
            Their people.
        threshold : float, optional
            People are counted where presence is above it.

        Returns
        -------
        FeatureBaseline

        Raises
        ------
        InputError
            If there is no cell, one whose people are not known, or all or none are inhabited.
        """
        _check(people)
        inhabited = people > 0
        if inhabited.all() or not inhabited.any():
            raise InputError(
                f"{inhabited.sum()} of {len(people)} training cells are inhabited, but a baseline "
                "needs some of both kinds: give it empty and inhabited cells"
            )
        features = picture_features(images)
        presence = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        counts = make_pipeline(StandardScaler(), LinearRegression())
        presence.fit(features, inhabited)
        counts.fit(features[inhabited], people[inhabited])
        return cls(presence, counts, threshold)

    def predict(self, images: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Estimate cells.

        Parameters
        ----------
        images : array, (cell, band, row, col)
            As those that it was fitted on.

        Returns
        -------
        presence, people : ndarray of float32, (cell,)
            The probability that somebody lives there, and people: 0 where it is not above the
            threshold, never negative.
        """
        features = picture_features(images)
        presence = self.presence.predict_proba(features)[:, 1]
        counts = np.clip(self.people.predict(features), 0, None)
        people = np.where(presence > self.threshold, counts, 0)
        return presence.astype(np.float32), people.astype(np.float32)


def fit_baselines(cells: xr.Dataset) -> dict[str, Baseline]:
    """Fit both baselines on the training cells.

    Parameters
    ----------
    cells : Dataset
        ``images`` (cell, band, row, col) and ``people`` (cell); with ``split``, only its training
        cells are used, otherwise all cells with known people.

    Returns
    -------
    dict
        By the name that they have in a table of scores: "mean per cell", "regression".

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> people = np.repeat([0.0, 8.0], 20)
    >>> images = rng.normal(100, 2 + people[:, None, None, None], (40, 1, 16, 16))
    >>> dims = ("cell", "band", "row", "col")
    >>> cells = xr.Dataset({"images": (dims, images), "people": ("cell", people)})
    >>> baselines = fit_baselines(cells)
    >>> list(baselines), baselines["mean per cell"].people
    (['mean per cell', 'regression'], 4.0)
    """
    people = cells["people"].values
    chosen = np.flatnonzero(cells["split"] == 0 if "split" in cells else np.isfinite(people))
    images, people = cells["images"].isel(cell=chosen).data, people[chosen]
    return {
        "mean per cell": MeanBaseline.fit(images, people),
        "regression": FeatureBaseline.fit(images, people),
    }


def picture_features(images: Any) -> NDArray[np.float64]:
    """Describe pictures by their brightness, edges and texture.

    Of each band: mean and standard deviation; the 1st, 10th, 90th and 99th percentile; mean and
    standard deviation of the gradient's length, the share of pixels where it exceeds 30, and the
    share of it that points down the rows; the standard deviation that means over squares of 2, 4
    and 8 pixels lose from one size to the next; and that between the four quarters.

    Parameters
    ----------
    images : array, (cell, band, row, col)
        NumPy or Dask, read in batches of 512 cells; at least 16 pixels a side.

    Returns
    -------
    ndarray of float64, (cell, 14 · band)
        The figures of the first band in the order of FEATURES, then of the next.

    Raises
    ------
    InputError
        If the images are smaller than 16 × 16 pixels.

    Examples
    --------
    >>> picture_features(np.full((2, 1, 16, 16), 90, np.uint8))[0, :4]
    array([90.,  0., 90., 90.])
    """
    if min(images.shape[2:]) < 16:
        raise InputError(
            f"images have {images.shape[2]} × {images.shape[3]} pixels, but textures need 16 × 16: "
            "cut the cells at a finer resolution"
        )
    bands = images.shape[1]
    parts = [
        np.stack([_features(batch[:, band]) for band in range(bands)], 1)
        for batch in _batches(images)
    ]
    return np.concatenate(parts).reshape(len(images), bands * len(FEATURES))


def _batches(images: Any) -> Iterator[NDArray[np.float32]]:
    """Read some cells at a time; what has no data is 0, as networks see it."""
    for start in range(0, len(images), _BATCH):
        batch = np.asarray(images[start : start + _BATCH], np.float32)
        yield np.where(np.isnan(batch), np.float32(0), batch)


def _features(pictures: NDArray[np.float32]) -> NDArray[np.float64]:
    """Describe one band (cell, row, col) by FEATURES (cell, feature)."""
    flat = pictures.reshape(len(pictures), -1)
    down, across = np.diff(pictures, axis=1)[:, :, 1:], np.diff(pictures, axis=2)[:, 1:]
    edges = np.hypot(down, across).reshape(len(pictures), -1)
    falls = abs(down).mean((1, 2)) / (abs(down).mean((1, 2)) + abs(across).mean((1, 2)) + 1e-6)
    spreads = [flat.std(1), *(_squares(pictures, side).std((1, 2)) for side in (2, 4, 8))]
    textures = [fine - coarse for fine, coarse in pairwise(spreads)]
    quarters = _squares(pictures, min(pictures.shape[1:]) // 2).std((1, 2))
    brightness = [flat.mean(1), spreads[0], *np.percentile(flat, (1, 10, 90, 99), axis=1)]
    steps = [edges.mean(1), edges.std(1), (edges > 30).mean(1), falls]
    return np.stack([*brightness, *steps, *textures, quarters], 1).astype(np.float64)


def _squares(pictures: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Means over squares of so many pixels; what is left over at the edges does not count."""
    count, rows, cols = len(pictures), *(size // side for size in pictures.shape[1:])
    whole = pictures[:, : rows * side, : cols * side]
    return whole.reshape(count, rows, side, cols, side).mean((2, 4))


def _check(people: NDArray[np.floating]) -> None:
    """Refuse cells that nothing can be learned from."""
    unknown = int((~np.isfinite(people)).sum())
    if not len(people) or unknown:
        raise InputError(
            f"{unknown} of {len(people)} training cells have unknown people, but a baseline learns "
            "from known ones: leave those out, and give at least one"
        )
