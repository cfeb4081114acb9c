"""The nearest centre of rows of latents, on plain arrays.

An argmin flips on the last bit, so distances are summed row by row in a fixed order: the classes
depend on the latents and the centres, never on how rows are cut into blocks.
"""

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True)
def nearest(
    latents: NDArray, mean: NDArray, scale: NDArray, centers: NDArray
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Find the nearest centre of every row of (n, latent), and its squared distance.

    The lowest class wins a tie; a row with NaN gets class −1 and distance NaN.
    """
    n, width = latents.shape
    k = len(centers)
    columns = centers.T.copy()  # (latent, k): the classes side by side, so that they vectorise
    classes = np.full(n, -1, np.int16)
    squared = np.full(n, np.nan)
    distance = np.empty(k)
    for i in range(n):
        distance[:] = 0.0
        for j in range(width):
            z = (latents[i, j] - mean[j]) / scale[j]
            if np.isnan(z):
                distance[0] = np.nan
                break
            for c in range(k):
                distance[c] += (z - columns[j, c]) ** 2
        if np.isnan(distance[0]):
            continue
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
    scale: NDArray,
    centers: NDArray,
    hold: float,
) -> NDArray[np.int16]:
    """Keep the class before, −1 = none, unless the nearest centre is nearer by more than `hold`."""
    classes, squared = nearest(latents, mean, scale, centers)
    for i in range(len(latents)):
        kept = before[i]
        if classes[i] < 0 or kept < 0 or classes[i] == kept:
            continue
        distance = 0.0
        for j in range(latents.shape[1]):
            distance += ((latents[i, j] - mean[j]) / scale[j] - centers[kept, j]) ** 2
        if np.sqrt(distance) - np.sqrt(squared[i]) <= hold:
            classes[i] = kept
    return classes
