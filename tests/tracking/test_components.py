"""Connected components: SciPy's labels, at any chunking, in few tasks."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from popdask.blocks.components import (
    components,
    corners_of,
    describe_parts,
    join_parts,
    label_block,
    sum_people,
)
from popdask.blocks.sums import from_fixed, to_fixed


def reference(mask: np.ndarray, contiguity: int) -> np.ndarray:
    return ndimage.label(mask, np.ones((3, 3)) if contiguity == 8 else None)[0] - 1


def cut(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    cuts = st.sets(st.integers(1, size - 1), max_size=6)
    return cuts.map(lambda at: tuple(np.diff([0, *sorted(at), size]).tolist()))


@st.composite
def worlds(draw):
    height, width = draw(st.integers(2, 40)), draw(st.integers(2, 40))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).standard_normal((height, width))
    smooth = ndimage.gaussian_filter(noise, draw(st.sampled_from([0, 1, 2])))
    mask = smooth > np.quantile(smooth, draw(st.sampled_from([0.1, 0.4, 0.6, 0.9])))
    return mask, (draw(cut(height)), draw(cut(width)))


@settings(max_examples=40)
@given(worlds(), st.sampled_from([4, 8]))
def test_labels_equal_scipy_at_any_chunking(world, contiguity):
    mask, chunks = world
    expected = reference(mask, contiguity)
    for cuts in (-1, chunks, 4):
        found = components(da.from_array(mask, chunks=cuts), contiguity)
        np.testing.assert_array_equal(found.compute(scheduler="sync"), expected)


@settings(max_examples=30)
@given(worlds(), st.sampled_from([4, 8]))
def test_people_of_components_are_exact_across_blocks(world, contiguity):
    mask, (rows, columns) = world
    people = np.random.default_rng(1).gamma(0.3, 900, mask.shape).astype(np.float32)
    people[people > 4000] = np.nan
    parts, corners = [], corners_of((rows, columns))
    for number, (top, left) in enumerate(corners):
        j, i = divmod(number, len(columns))
        block = np.s_[top : top + rows[j], left : left + columns[i]]
        codes = mask[block].view(np.uint8)
        runs = label_block(codes, contiguity)
        sums = sum_people(people[block], *runs[:4], runs.roots.size)
        parts.append(describe_parts(runs, codes, (top, left), mask.shape[1], sums))
    joined = join_parts(parts, (len(rows), len(columns)), contiguity)
    label = reference(mask, contiguity)
    for number in range(label.max() + 1):
        inside = label == number
        coarse, fine = (word.sum() for word in to_fixed(people[inside]))
        assert joined.sums[:, number].tolist() == [coarse, fine, inside.sum()]
        assert from_fixed(*joined.sums[:2, number]) == pytest.approx(np.nansum(people[inside]))


def test_frames_are_labelled_apart_and_lazily():
    mask = np.random.default_rng(2).random((2, 3, 20, 30)) < 0.5
    found = components(da.from_array(mask, chunks=(2, 2, 7, 8)), 8)
    for frame in np.ndindex(2, 3):
        np.testing.assert_array_equal(found[frame], reference(mask[frame], 8))

    def fail(block):
        raise AssertionError("computed")

    untouched = da.zeros((40, 40), bool, chunks=5).map_blocks(fail, meta=np.empty((0, 0), bool))
    graph = components(untouched, 4).__dask_graph__()
    assert len(graph) <= 5 * 64 + 70  # zeros, map, runs, parts, draw; join
