"""Images of cells on their way to a network: from memory, or from a store larger than it.

Where the images fit into the memory that is granted, they are read once, and an epoch is one
shuffled portion. Otherwise an epoch shuffles runs of 64 cells, reads as many runs as fit into half
of the memory, and shuffles the cells in such a portion, while the next one is being read. The order
depends on the seed and on the memory granted, not on the chunks of the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import dask
import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from xarray import DataArray, Dataset

from popdask.imagery.models import TrainedModel

RUN = 64


class Portion(NamedTuple):
    """Images in memory, and which of them to take, in which order."""

    images: NDArray
    """(m, band, row, col), raw."""
    picks: NDArray[np.int64]
    """Indices along the first axis of `images`, (n,)."""
    cells: NDArray[np.int64]
    """The same cells as they were asked for, (n,)."""


class CellImages:
    """The images of some cells.

    Parameters
    ----------
    images : DataArray, (cell, band, row, col)
        NumPy or Dask.
    chosen : ndarray of int64, (n,)
        The cells, ascending.
    memory : int
        Bytes that may be held.

    Examples
    --------
    >>> images = DataArray(np.arange(6).reshape(6, 1, 1, 1), dims=("cell", "band", "row", "col"))
    >>> chosen = CellImages(images, np.array([1, 3, 5]), memory=100)
    >>> [portion.images[portion.picks].ravel().tolist() for portion in chosen.portions()]
    [[1, 3, 5]]
    """

    def __init__(self, images: DataArray, chosen: NDArray[np.int64], memory: int) -> None:
        self.images = images.transpose("cell", "band", "row", "col")
        self.chosen = chosen
        self.each = self.images[:1].nbytes
        self.memory = memory
        self.held: NDArray | None = None
        if images.chunks is None:
            self.held = self.images.values
        elif self.each * len(chosen) <= memory:
            self.held = np.empty((0,)) if len(chosen) == 0 else self._read(np.arange(len(chosen)))

    def __len__(self) -> int:
        return len(self.chosen)

    def portions(
        self, order: NDArray[np.int64] | None = None, rng: np.random.Generator | None = None
    ) -> Iterator[Portion]:
        """Give the images in portions.

        Parameters
        ----------
        order : ndarray of int64, optional
            Indices into the chosen cells, repetitions allowed; all of them by default.
        rng : Generator, optional
            Shuffles what cannot be given in the wanted order; without it, runs come ascending.
        """
        order = np.arange(len(self)) if order is None else order
        if self.held is not None:
            picks = self.chosen[order] if self.images.chunks is None else order
            yield Portion(self.held, picks, order)
            return
        parts = self._parts(order, rng)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._portion, parts[0])
            for following in [*parts[1:], None]:
                portion = coming.result()
                if following is not None:
                    coming = reader.submit(self._portion, following)
                yield portion

    def _parts(
        self, order: NDArray[np.int64], rng: np.random.Generator | None
    ) -> list[NDArray[np.int64]]:
        """Cut an order of cells into parts of whole runs, each within half of the memory."""
        runs = order // RUN
        found = np.unique(runs)
        size = max(1, self.memory // 2 // (self.each * RUN))
        if rng is not None:
            found = rng.permutation(found)
        rank = np.empty(runs.max() + 1, np.int64)
        rank[found] = np.arange(len(found)) // size
        parts = [order[rank[runs] == part] for part in range(rank[found].max() + 1)]
        return [np.sort(part) if rng is None else rng.permutation(part) for part in parts]

    def _portion(self, cells: NDArray[np.int64]) -> Portion:
        read, picks = np.unique(cells, return_inverse=True)
        return Portion(self._read(read), picks, cells)

    def _read(self, cells: NDArray[np.int64]) -> NDArray:
        # By this process's own threads: the images have to end up here, and a task that waited for
        # other tasks of its cluster could wait for itself.
        with dask.config.set(scheduler="threads"):
            return self.images.isel(cell=self.chosen[cells]).values


def predict_cells(
    model: TrainedModel,
    cells: Dataset,
    chosen: NDArray[np.int64] | None = None,
    *,
    device: str = "auto",
    batch_size: int = 16,
    threads: int | None = None,
    memory: int = 2**31,
) -> NDArray[np.float32]:
    """Say of cells what a model says of them.

    Parameters
    ----------
    model : TrainedModel
    cells : Dataset
        With ``images`` (cell, band, row, col), NumPy or Dask.
    chosen : ndarray of int64, optional
        Indices of cells, ascending; all by default.
    device : str, optional
        A torch device, or "auto": a GPU where there is one.
    batch_size : int, optional
        Cells per batch.
    threads : int, optional
        Of torch; all cores at hand by default.
    memory : int, optional
        Bytes of images to hold.

    Returns
    -------
    ndarray of float32, (n,)
        As `TrainedModel.predict` gives it.

    Raises
    ------
    InputError
        If the images have other bands or pixels than the model.

    Examples
    --------
    >>> network = {"network": "CountCNN", "blocks": 1, "base": 4}
    >>> model = TrainedModel.untrained("count", network, pixels=8)
    >>> cells = Dataset({"images": (("cell", "band", "row", "col"), np.zeros((5, 1, 8, 8), "u1"))})
    >>> predict_cells(model, cells).shape
    (5,)
    """
    chosen = np.arange(cells.sizes["cell"]) if chosen is None else chosen
    said = np.empty(len(chosen), np.float32)
    for portion in CellImages(cells["images"], chosen, memory).portions():
        for picks, places in zip(_pieces(portion.picks), _pieces(portion.cells), strict=True):
            images = portion.images[picks]
            said[places] = model.predict(
                images, device=device, batch_size=batch_size, threads=threads or CPU_COUNT
            )
    return said


def _pieces(indices: NDArray[np.int64], size: int = 1024) -> list[NDArray[np.int64]]:
    """Cut indices into pieces whose images are copied together."""
    return np.split(indices, range(size, len(indices), size))
