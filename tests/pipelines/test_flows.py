"""The flows of a job: the first work's by default, coarse to fine on request, and in the links."""

import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from popdask.config import CommunitiesJob
from popdask.tracking.flow import optical_flow
from popdask.tracking.link import compare_frames
from popdask.workflow import communities
from popdask.workflow.communities import PIPELINE
from popdask.workflow.frames import basis
from popdask.workflow.plan import decide
from tests.pipelines import small

FAR = {"scales": 2, "log": True}
SCALES = {"scales": 3, "log": True}


def run(frames, store, **tables):
    return communities.run(small.job(frames, store, encoder={"epochs": 1}, **tables)).store


@pytest.mark.parametrize("flow", [{}, FAR, {"scales": 2, "iterations": 5, "alpha": 3.0}])
def test_the_stored_flow_is_that_of_the_verb(frames, tmp_path, flow):
    settings = small.job(frames, tmp_path / "flow.icechunk", flow=flow)
    for stage in ("population", "flow"):
        communities.run_only(settings, stage)
    stored = communities.RegionStore(settings.output.store).dataset("work")
    verb = optical_flow(stored["population"], **flow)
    for name in ("u", "v"):
        np.testing.assert_array_equal(stored[name], verb[name])


def test_several_scales_bring_their_own_defaults():
    def flow(**given):
        tables = {"name": "a", "input": {"frames": "p_{year}.tif"}, "output": {"store": "a"}}
        found = CommunitiesJob.model_validate(tables | {"flow": given}).flow
        return found.iterations, found.alpha

    assert flow() == flow(log=True) == (1, 10.0)
    assert flow(scales=3) == (30, 10.0) and flow(**FAR) == (30, 2.0)
    assert flow(**FAR, iterations=4, alpha=7) == (4, 7.0)


@pytest.fixture(scope="module")
def chunked(frames, tmp_path_factory):
    """Two stores of the same, in one chunk and in several, of which links are computed anew."""
    folder = tmp_path_factory.mktemp("chunked")
    chunks = {"one": "auto", "parts": 20}
    for name, edge in chunks.items():
        run(frames, folder / name, input={"chunks": edge})
    return {name: (folder / name, {"chunks": edge}) for name, edge in chunks.items()}


@pytest.mark.parametrize(
    ("links", "ways"),
    [
        ({"rule": "direction"}, {"flow": 1, "backward": -1}),
        ({"rule": "overlap", "scales": 3}, {"flow": 1}),
    ],
)
def test_links_that_follow_a_flow_are_those_of_the_verb_in_any_chunks(
    frames, chunked, tmp_path, links, ways
):
    one, parts = (
        run(frames, shutil.copytree(store, tmp_path / store.name), links=links, input=chunks)
        for store, chunks in chunked.values()
    )
    found, arrays = one.table("links"), one.dataset()
    people = arrays["population"]
    flows = {
        name: optical_flow(people, centering=(0, 0, way), **SCALES) for name, way in ways.items()
    }
    options = {"rule": links["rule"], "share": 0.25, "memory": 1}
    verb, _ = compare_frames(arrays["community"], people, **flows, **options)
    pd.testing.assert_frame_equal(found, verb)
    assert len(found) and (links["rule"] != "direction" or found["similarity"].dtype == float)
    xr.testing.assert_identical(parts.dataset()["community"].load(), arrays["community"].load())
    pd.testing.assert_frame_equal(found, parts.table("links"))


def test_links_by_direction_of_an_appended_frame_are_those_of_all_at_once(frames, tmp_path):
    tables = {"links": {"rule": "direction"}, "flow": {"centering": (0, 0, -1)}}
    store = tmp_path / "append.icechunk"
    run(frames, store, input={"end": "2002"}, **tables)
    found = run(frames, store, **tables)
    arrays = found.dataset()
    flows = {
        name: optical_flow(arrays["population"], centering=(0, 0, way), **SCALES)
        for name, way in (("flow", 1), ("backward", -1))
    }
    options = {"rule": "direction", "share": 0.25, "memory": 1}
    verb, _ = compare_frames(arrays["community"], arrays["population"], **flows, **options)
    pd.testing.assert_frame_equal(found.table("links"), verb)


def test_flow_coarse_to_fine_does_not_chain_the_frames(frames):
    def stale(**flow):
        settings = small.job(frames, "nowhere.icechunk", flow=flow)
        years = {f"{year}-01-01T00:00:00": str(year) for year in range(2000, 2006)}
        records = {
            one.name: one.record for one in decide(PIPELINE.stages, basis(settings, years, {}))
        }
        changed = years | {"2001-01-01T00:00:00": "another"}
        return decide(PIPELINE.stages, basis(settings, changed, records))["flow"].stale

    assert stale() == (0, 1, 2, 3, 4, 5) and stale(scales=2) == (0, 1, 2)
