"""Plain features of a cell's image, and trees or ridges on them in the place of a network.

Figures of a picture that need no learning are its brightness, edges and texture. What a regression
on them knows of people is what a network must beat; with boosted trees on top they are a model of
their own, which costs a thirtieth of a network's training.

Where `patches` are asked for, features are learned without labels, too (Rolf et al. 2021, "A
generalizable and accessible approach to machine learning with global satellite imagery", Nature
Communications 12): pieces of the images, whitened, are the filters of one convolution, and what
they find on average in the cell and around it is brought to its principal components.

Trees are stored as arrays of their nodes, like any weights, and answered by a loop over them here:
reading a file runs no code from it, and needs no library that the trees were grown with. Features
and thresholds are 32-bit; a threshold is rounded down, so a feature is on the same side of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from popdask.errors import InputError
from popdask.imagery.networks import Network

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

LEAST = 2  # pixels a side, for edges
_BATCH = 512  # cells whose pixels are held at a time


def picture_features(images: Any) -> NDArray[np.float64]:
    """Describe pictures by their brightness, edges and texture."""
    # Of each band: mean and standard deviation; the 1st, 10th, 90th and 99th percentile; mean and
    # standard deviation of the gradient's length, the share of pixels where it exceeds 30, and
    # the share of it that points down the rows; the standard deviation that means over squares of
    # 2, 4 and 8 pixels lose from one size to the next (a square larger than the picture loses
    # all of it); and that between the four quarters.
    if min(images.shape[2:]) < LEAST:
        raise InputError(
            f"images have {images.shape[2]} × {images.shape[3]} pixels, but edges need 2 × 2: cut "
            "the cells at a finer resolution"
        )
    bands = images.shape[1]
    parts = [
        np.stack([_features(batch[:, band]) for band in range(bands)], 1)
        for batch in _batches(images)
    ]
    return np.concatenate(parts).reshape(len(images), bands * len(FEATURES))


def cell_features(images: NDArray, ring: int) -> NDArray[np.float32]:
    """Describe pictures with the surroundings of a cell, and the cell in their middle by itself."""
    whole = picture_features(images)
    if not ring:
        return whole.astype(np.float32)
    own = np.nan_to_num(images[:, :, ring:-ring, ring:-ring].astype(np.float32))
    flat = own.reshape(*own.shape[:2], -1)
    figures = [flat.mean(2), flat.std(2), flat.min(2), flat.max(2)]
    return np.concatenate([whole, *figures], 1).astype(np.float32)


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
    spreads = [flat.std(1)]
    for side in (2, 4, 8):
        fits = side <= min(pictures.shape[1:])
        spreads.append(_squares(pictures, side).std((1, 2)) if fits else 0 * spreads[0])
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


SIDE = 5  # pixels of a patch
SAMPLE = 20_000  # patches that filters are whitened by
FLOOR = 1e-2  # added to the variances that patches are whitened by
NOTHING = 1e-6  # of the largest variance: what components below it tell is rounding
TOGETHER = 16  # cells to a convolution, always: its last bits depend on their number


class PatchFeatures(nn.Module):
    """What patches of images find in others: raw (B, bands, rows, columns) → (B, components)."""

    filters: Tensor
    shift: Tensor
    centre: Tensor
    projection: Tensor

    def __init__(self, bands: int, ring: int, patches: int, components: int) -> None:
        super().__init__()
        self.margins = [max(rim - SIDE // 2, 0) for rim in dict.fromkeys((ring, ring // 2, 0))]
        found = 2 * patches * len(self.margins)
        self.components = min(components, found)
        shapes = {
            "filters": (patches, bands, SIDE, SIDE),
            "shift": (patches,),
            "centre": (found,),
            "projection": (found, self.components),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def fit(self, images: NDArray, others: int, seed: int) -> PatchFeatures:
        """Take patches and components from images (n, band, row, col), all but the last bands."""
        shown = np.nan_to_num(images[:, : images.shape[1] - others].astype(np.float32))
        rng, bands = np.random.default_rng(seed), shown.shape[1]
        which, row, col = (
            rng.integers(0, size, SAMPLE)
            for size in (len(shown), shown.shape[2] - SIDE + 1, shown.shape[3] - SIDE + 1)
        )
        views = np.lib.stride_tricks.sliding_window_view(shown, (SIDE, SIDE), (2, 3))
        mean, spread = shown.mean((0, 2, 3)), shown.std((0, 2, 3)) + 1e-6
        patches = (views[which, :, row, col] - mean[:, None, None]) / spread[:, None, None]
        flat = patches.reshape(SAMPLE, -1).astype(np.float64)
        middle = flat.mean(0)
        variances, axes = np.linalg.eigh(np.cov(flat.T))
        whiten = axes / np.sqrt(variances + FLOOR) @ axes.T
        drawn = (flat[: len(self.shift)] - middle) @ whiten
        length = np.linalg.norm(drawn, axis=1, keepdims=True)
        filters = drawn / np.maximum(length, 1e-12) @ whiten  # of images of one colour it is 0
        scaled = filters.reshape(-1, bands, SIDE, SIDE) / spread[:, None, None]
        self.filters[:, :bands] = torch.from_numpy(scaled.astype(np.float32))
        shift = filters @ middle + (scaled * mean[:, None, None]).sum((1, 2, 3))
        self.shift[:] = torch.from_numpy(-shift.astype(np.float32))
        found = self.responses(images).astype(np.float64)
        self.centre[:] = torch.from_numpy(found.mean(0).astype(np.float32))
        spreads = found.std(0) + 1e-9
        standard = (found - found.mean(0)) / spreads
        variances, axes = np.linalg.eigh(standard.T @ standard / len(found))
        kept = slice(len(variances) - self.components, None)
        told = variances[kept] > NOTHING * variances[-1]  # fewer than asked for, by few images
        lengths = np.where(told, 1 / np.sqrt(np.maximum(variances[kept], 1e-9)), 0)
        projection = axes[:, kept] * lengths / spreads[:, None]
        self.projection[:] = torch.from_numpy(projection[:, ::-1].astype(np.float32))
        return self

    def responses(self, images: NDArray) -> NDArray[np.float32]:
        """Mean of what filters find above 1 and below −1, in the cell and in what is around it."""
        found = np.empty((len(images), len(self.centre)), np.float32)
        batch = np.zeros((TOGETHER, *images.shape[1:]), np.float32)
        # Features are of full precision, in whatever the networks beside them are answered.
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            for start in range(0, len(images), TOGETHER):
                part = images[start : start + TOGETHER]
                batch[: len(part)] = np.nan_to_num(part)
                seen = nn.functional.conv2d(torch.from_numpy(batch), self.filters, self.shift)
                sides = (torch.relu(seen - 1), torch.relu(-seen - 1))
                means = [
                    side[:, :, rim : side.shape[2] - rim, rim : side.shape[3] - rim].mean((2, 3))
                    for side in sides
                    for rim in self.margins
                ]
                found[start : start + TOGETHER] = torch.cat(means, 1)[: len(part)].numpy()
        return found

    def describe(self, images: NDArray) -> NDArray[np.float32]:
        """Components (n, component) of raw images; each by itself, to the last bit."""
        around = self.responses(images) - self.centre.numpy()
        return np.einsum("ij,jk->ik", around, self.projection.numpy())


FEATURES_NETWORK = "features"  # the name of this network in settings
HEADS = ("boosting", "ridge")


class FeatureModel(Network):
    """Boosted trees, or a ridge regression, on the features of a cell's raw picture.

    Parameters
    ----------
    head : {"boosting", "ridge"}, optional
        What answers from the features.
    bands : int, optional
        Bands of the image.
    ring : int, optional
        Pixels around the cell on every side of the image.
    trees : int, optional
        Trees to grow at most; as many are kept as do best on the cells to choose by.
    leaves, least, rate : int, int, float, optional
        Leaves of a tree, cells in a leaf at least, and what a tree counts.
    l2 : float, optional
        The penalty of a leaf's value, 5 by default; of the ridge regression that of its weights,
        by default the one of 1, 10 … 10,000 that does best on the cells to choose by.
    patches, components : int, optional
        Patches of the images that are looked for in them, too, and the principal components of what
        they find; 0: plain features alone.
    nodes, grown : int, optional
        Nodes of all trees, and trees, of a model that is fitted.

    Notes
    -----
    ``forward``: raw (B, bands, rows, columns) → (B,), a logit or people; on the CPU.

    Examples
    --------
    >>> FeatureModel()(torch.zeros(3, 1, 20, 20)).tolist()
    [0.0, 0.0, 0.0]
    """

    def __init__(
        self,
        head: str = "boosting",
        bands: int = 1,
        ring: int = 0,
        trees: int = 300,
        leaves: int = 15,
        least: int = 40,
        rate: float = 0.05,
        l2: float | None = None,
        patches: int = 64,
        components: int = 64,
        nodes: int = 0,
        grown: int = 0,
    ) -> None:
        given = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }
        super().__init__()
        if head not in HEADS:
            raise InputError(f"head is {head!r}, expected 'boosting' or 'ridge'; correct it")
        lowest = {"trees": 1, "leaves": 2, "least": 1, "patches": 0, "components": 1}
        for name, low in lowest.items():
            if given[name] < low:
                raise InputError(f"{name} is {given[name]}, expected at least {low}; correct it")
        if not (0 < rate <= 1 and (l2 is None or l2 >= 0)):
            raise InputError(
                f"rate is {rate} and l2 {l2}, expected a rate above 0 up to 1, and 0 or more"
            )
        self.config: dict[str, Any] = {"network": FEATURES_NETWORK, **given}
        self.patches = PatchFeatures(bands, ring, patches, components) if patches else None
        columns = bands * (18 if ring else 14) + (self.patches.components if self.patches else 0)
        size = nodes if head == "boosting" else columns
        self.start = nn.Parameter(torch.zeros(1))
        self.value = nn.Parameter(torch.zeros(size))
        self.threshold = nn.Parameter(torch.zeros(size))  # of a ridge regression, the means
        self.register_buffer("feature", torch.zeros(size, dtype=torch.int32))
        self.register_buffer("sides", torch.zeros((size, 2), dtype=torch.int32))
        self.register_buffer("roots", torch.zeros(grown, dtype=torch.int32))

    def describe(self, images: NDArray) -> NDArray[np.float32]:
        """Features (cell, feature) of raw images."""
        plain = cell_features(images, self.config["ring"])
        if self.patches is None:
            return plain
        return np.concatenate([plain, self.patches.describe(images)], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit of presence, or the number of people."""
        if x.is_meta:
            return x.sum((1, 2, 3))
        features = self.describe(x.contiguous().cpu().numpy())
        return torch.from_numpy(self.answer(features)).to(x.device)

    def answer(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer from features (cell, feature)."""
        value, threshold = (part.detach().cpu().numpy() for part in (self.value, self.threshold))
        start = float(self.start.detach())
        if self.config["head"] == "ridge":
            around = (features - threshold).astype(np.float64)
            return (start + (around * value).sum(1)).astype(np.float32)
        names = ("feature", "sides", "roots")
        feature, children, roots = (self.get_buffer(name).cpu().numpy() for name in names)
        answers: NDArray[np.float32] = _answers(
            features, feature, children, roots, threshold, value, start
        )
        return answers


@numba.njit(cache=True)
def _answers(
    features: NDArray[np.float32],
    feature: NDArray[np.int32],
    children: NDArray[np.int32],
    roots: NDArray[np.int32],
    threshold: NDArray[np.float32],
    value: NDArray[np.float32],
    start: float,
) -> NDArray[np.float32]:
    """Walk every cell (cell, feature) down every tree; a leaf has no children (−1)."""
    out = np.empty(len(features), np.float32)
    for cell in range(len(features)):
        total = start
        for root in roots:
            node = root
            while children[node, 0] >= 0:
                right = features[cell, feature[node]] > threshold[node]
                node = children[node, 1 if right else 0]
            total += value[node]
        out[cell] = total
    return out
