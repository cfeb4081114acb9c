"""A checksum tells one frame from any other, and does not see the chunks."""

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.store.content import block_checksum, file_checksum, stored_checksum

DTYPES = (np.float32, np.float64, np.int16, np.int32)


def plain_checksum(frame):
    """The same sum, cell by cell, in Python integers."""
    mask, total = 2**64 - 1, 0

    def mix(word):
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & mask
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB & mask
        return word ^ (word >> 31)

    bits = frame.view(f"u{frame.dtype.itemsize}").ravel()
    for position, (value, word) in enumerate(zip(frame.ravel(), bits, strict=True)):
        if not (np.isnan(value) if frame.dtype.kind == "f" else value == -1):
            total += mix(mix((position + 1) * 0x9E3779B97F4A7C15 & mask) ^ int(word))
    return total & mask


def frames(dtype, shape=(2, 9, 11), seed=0):
    values = np.random.default_rng(seed).integers(-1, 50, shape).astype(dtype)
    return np.where(values < 0, np.nan, values / 7).astype(dtype) if dtype(0.5) else values


def stored(values, chunks=(1, 9, 11)):
    return zarr.create_array({}, data=values, chunks=chunks)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_checksum_is_the_sum_of_the_cells_hashes(dtype):
    values = frames(dtype)
    for position, frame in enumerate(values):
        assert stored_checksum(stored(values), position) == f"{plain_checksum(frame):016x}"


@given(st.sampled_from(DTYPES), st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 11)))
@settings(max_examples=25)
def test_chunks_do_not_matter(dtype, chunks):
    values = frames(dtype)
    found = [stored_checksum(stored(values, chunks), position) for position in (0, 1)]
    assert found == [stored_checksum(stored(values), position) for position in (0, 1)]


@given(st.sampled_from(DTYPES), st.integers(0, 8), st.integers(0, 10))
@settings(max_examples=25)
def test_one_other_bit_is_another_checksum(dtype, row, column):
    frame = frames(dtype)[0]
    other = frame.copy()
    other.view(f"u{frame.dtype.itemsize}")[row, column] ^= 1
    nothing = np.isnan(frame) & np.isnan(other)
    if not nothing[row, column]:
        assert block_checksum(frame, (0, 0), 11) != block_checksum(other, (0, 0), 11)


def test_cells_that_change_places_are_seen():
    frame = np.arange(12, dtype=np.int32).reshape(3, 4)
    swapped = frame.copy()
    swapped[0, 0], swapped[2, 3] = frame[2, 3], frame[0, 0]
    assert block_checksum(frame, (0, 0), 4) != block_checksum(swapped, (0, 0), 4)


def test_a_lost_chunk_is_seen_and_an_empty_one_adds_nothing():
    frame = frames(np.float32)[0]
    lost = frame.copy()
    lost[:4, :4] = np.nan
    assert block_checksum(frame, (0, 0), 11) != block_checksum(lost, (0, 0), 11)
    assert block_checksum(np.full((3, 4), -1, np.int16), (0, 0), 11) == 0


def test_a_file_is_known_by_its_sha256():
    assert file_checksum(b"abc").startswith("ba7816bf")
