"""Communities beside scikit-learn: the same labels, time and peak memory, one thread each.

Time is that of the processor, so that other work on the machine matters little.

    python benchmarks/dbscan.py                     # 600 × 400 cells, seconds
    python benchmarks/dbscan.py --shape 1796 1105   # the GPW grid of Thailand

The classes are bands of a random field, smooth like population: large coherent patches, thin rims.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import dask
import numpy as np
import psutil
import xarray as xr
from scipy.ndimage import gaussian_filter
from sklearn.cluster import DBSCAN

from popdask.tracking.dbscan import dbscan

Labels = Callable[[np.ndarray, float, int], np.ndarray]


def bands(shape: tuple[int, int], count: int, smooth: float = 5, seed: int = 0) -> np.ndarray:
    """Classes 0 … count − 1: the quantiles of a smoothed random field, int16."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), smooth)
    edges = np.quantile(field, np.linspace(0, 1, count + 1)[1:-1])
    return np.digitize(field, edges).astype(np.int16)


def scikit_learn(classes: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    """Labels of the peer, class by class, continued from class to class."""
    community = np.full(classes.shape, -1, np.int32)
    for kind in np.unique(classes[classes >= 0]):
        cells = np.argwhere(classes == kind)
        label = DBSCAN(eps=eps, min_samples=min_samples, n_jobs=1).fit_predict(cells)
        community[tuple(cells.T)] = np.where(label < 0, -1, label + community.max() + 1)
    return community


def popdask_whole(classes: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    """Labels of popdask, the frame in one chunk."""
    return dbscan(xr.DataArray(classes, dims=("y", "x")), eps=eps, min_samples=min_samples).values


def popdask_chunks(classes: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    """Labels of popdask, the frame in chunks of 256 × 256 cells."""
    array = xr.DataArray(classes, dims=("y", "x")).chunk(y=256, x=256)
    return dbscan(array, eps=eps, min_samples=min_samples).values


def measure(
    labels: Labels, classes: np.ndarray, eps: float, min_samples: int
) -> tuple[np.ndarray, float, int]:
    """Labels, seconds of processor time and the most memory above that at the start, in bytes."""
    dask.config.set(scheduler="synchronous")
    labels(classes[:60, :60], eps, min_samples)  # compiles
    process, done = psutil.Process(), threading.Event()
    start = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.thread_time()
    found = labels(classes, eps, min_samples)
    seconds = time.thread_time() - begin
    done.set()
    watcher.join()
    return found, seconds, peak - start


def main() -> None:
    """Print the table; fail where labels differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=2, default=(600, 400), metavar=("ROWS", "COLS"))
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--smooth", type=float, default=5, help="width of the field's bumps, cells")
    parser.add_argument("--eps", type=float, default=10)
    parser.add_argument("--min-samples", type=int, default=50)
    options = parser.parse_args()

    classes = bands(tuple(options.shape), options.classes, options.smooth)
    print(f"{classes.shape[0]} × {classes.shape[1]} cells, {options.classes} classes, ", end="")
    print(f"eps {options.eps:g}, min_samples {options.min_samples}")
    print(f"{'':>16} {'seconds':>9} {'times':>7} {'MiB':>8} {'bytes/cell':>11}")
    peer: tuple[np.ndarray, float] | None = None
    for labels in (scikit_learn, popdask_whole, popdask_chunks):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            found, seconds, memory = fresh.submit(
                measure, labels, classes, options.eps, options.min_samples
            ).result()
        peer = peer or (found, seconds)
        np.testing.assert_array_equal(found, peer[0])
        print(
            f"{labels.__name__:>16} {seconds:>9.2f} {peer[1] / seconds:>7.1f} "
            f"{memory / 2**20:>8.0f} {memory / classes.size:>11.0f}"
        )
    print(f"labels equal: {peer[0].max() + 1} communities, {np.mean(peer[0] < 0):.0%} noise")


if __name__ == "__main__":
    main()
