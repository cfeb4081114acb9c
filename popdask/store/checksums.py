"""Checksums of what is stored: of frames of arrays, whatever their chunks, and of files.

A frame's checksum is the sum, modulo 2^64, of a 64-bit hash of every cell's position and bits. A
sum does not depend on its order, so neither does the checksum on the chunks; each chunk is hashed
where it is. Cells without anything (NaN, or −1 in integers) add nothing. Damage goes unnoticed with
a probability of 2^-64; it is no protection against forgery, as SHA-256 of files would be.

The hash is the finalizer of splitmix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom
number generators").
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable

import numba
import numpy as np
import zarr


@numba.njit(cache=True, nogil=True)
def _mix(word: np.uint64) -> np.uint64:
    word ^= word >> np.uint64(30)
    word *= np.uint64(0xBF58476D1CE4E5B9)
    word ^= word >> np.uint64(27)
    word *= np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _sum_hashes(
    values: np.ndarray, bits: np.ndarray, nothing: float, first: int, width: int
) -> np.uint64:
    """Add up the hashes of a block whose first cell has the position ``first`` in its frame."""
    total = np.uint64(0)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            value = values[row, column]
            if value == nothing or value != value:
                continue
            position = np.uint64(first + row * width + column + 1)
            key = _mix(position * np.uint64(0x9E3779B97F4A7C15))
            total += _mix(key ^ np.uint64(bits[row, column]))
    return total


def block_checksum(block: np.ndarray, corner: tuple[int, int], width: int) -> np.uint64:
    """Checksum of one block of a frame.

    Parameters
    ----------
    block : ndarray of float or signed int, (y, x)
        A part of the frame.
    corner
        Row and column of its first cell.
    width
        Columns of the frame.

    Returns
    -------
    numpy.uint64
        To be added, modulo 2^64, to those of the frame's other blocks.
    """
    block = np.ascontiguousarray(block)
    nothing = np.nan if block.dtype.kind == "f" else -1.0
    bits = block.view(f"u{block.dtype.itemsize}")
    return np.uint64(_sum_hashes(block, bits, nothing, corner[0] * width + corner[1], width))


def stored_checksum(array: zarr.Array, frame: int) -> str:
    """Checksum of one frame of a stored array, read chunk by chunk.

    Parameters
    ----------
    array : zarr.Array of float or signed int, (time, y, x)
        Any chunks.
    frame
        Position along time.

    Returns
    -------
    str
        16 hexadecimal digits.

    Examples
    --------
    >>> import numpy as np
    >>> import zarr
    >>> from popdask.store import stored_checksum
    >>> frames = np.arange(24.0).reshape(2, 3, 4)
    >>> whole = zarr.create_array({}, data=frames, chunks=(1, 3, 4))
    >>> parts = zarr.create_array({}, data=frames, chunks=(1, 2, 3))
    >>> stored_checksum(whole, 1) == stored_checksum(parts, 1)
    True
    >>> stored_checksum(whole, 0) == stored_checksum(whole, 1)
    False
    """
    _, height, width = array.shape
    _, rows, columns = array.chunks
    corners = itertools.product(range(0, height, rows), range(0, width, columns))
    parts = [
        block_checksum(np.asarray(array[frame, y : y + rows, x : x + columns]), (y, x), width)
        for y, x in corners
    ]
    return join_checksums(parts)


def join_checksums(parts: Iterable[np.uint64]) -> str:
    """Add up the checksums of a frame's blocks, as 16 hexadecimal digits."""
    return f"{sum(map(int, parts)) % 2**64:016x}"


def file_checksum(content: bytes) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
