"""A job says who lies beyond the grid of its first frame, and refuses where they are many."""

import pandas as pd
import pytest
import rasterio
from rasterio.windows import Window

from popdask.errors import InputError
from popdask.io import people_beyond
from popdask.store import RegionStore
from popdask.workflow import communities
from popdask.workflow.operations import verify
from popdask.workflow.progress import Reporter
from tests.pipelines.small import job, small_world


class Notes(Reporter):
    """Remembers what it is told."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@pytest.fixture
def frames(tmp_path):
    """The small world, of which the first frame is 42 columns narrower."""
    small_world().write(tmp_path)
    path = tmp_path / "world_2000.tif"
    with rasterio.open(path) as file:
        window = Window(0, 0, file.width - 42, file.height)
        values, profile = file.read(window=window), file.profile
    path.unlink()
    with rasterio.open(path, "w", **profile | {"width": values.shape[2]}) as file:
        file.write(values)
    return tmp_path


def test_who_lies_beyond_is_told_everywhere(frames):
    every = {"min_density": 0}  # cells that change their class as a frame comes are inside, too

    def settings(**how):
        tables = {"input": {"end": "2001", **how}, "communities": every}
        return job(frames, frames / "out.icechunk", **tables)

    paths = {year: str(frames / f"world_{year}.tif") for year in (2000, 2001)}
    ((total, beyond),) = people_beyond(paths)[["raster", "beyond"]].to_numpy()
    text = f"{beyond:,.1f} of the {total:,.1f} people of 2001"
    with pytest.raises(InputError, match=f"{text}.*at most 1%"):
        communities.run(settings(align=True))
    assert not RegionStore(frames / "out.icechunk").latest_records()
    with pytest.raises(InputError, match=f"{text}.*at most 1%"):
        communities.PIPELINE.plan(settings(align=True))
    asked, notes = settings(align=True, max_beyond=0.9), Notes()
    assert text in communities.PIPELINE.plan(asked).warnings[0]
    outcome = communities.run(asked, notes)
    assert [note for note in notes.said if text in note]
    assert outcome.balance["beyond"].tolist() == [0.0, beyond]
    assert outcome.balance["raster"][1] == pytest.approx(total - beyond, rel=1e-6)
    verified = verify(asked)
    assert verified.differences == () and text in verified.notes[0]
    appended = {"input": {"align": True, "max_beyond": 0.9}, "communities": every}
    table = communities.run(job(frames, asked.output.store, **appended)).balance
    pd.testing.assert_frame_equal(table[:2], outcome.balance)
    assert (table["beyond"][1:] > 0).all()


@pytest.mark.parametrize("how", [{"align": True, "max_beyond": 0.9}, {"align": "cover"}])
def test_a_plan_counts_only_the_frames_that_are_to_be_read(frames, monkeypatch, how):
    """Of those that are stored, the record tells who was left out."""

    def settings(end):
        return job(frames, frames / "out.icechunk", input={"end": end, **how})

    counted = []

    def count(paths, **options):
        counted.append([str(time)[:4] for time in paths])
        return people_beyond(paths, **options)

    def told(end):
        warnings = communities.PIPELINE.plan(settings(end)).warnings
        return [text for text in warnings if "beyond the grid" in text]

    communities.run(settings("2001"))
    monkeypatch.setattr("popdask.workflow.frames.people_beyond", count)
    said = told("2001")
    assert not counted and len(said) == (how["align"] is True)
    assert told("2002")[: len(said)] == said
    assert counted == [["2000", "2002"] if how["align"] is True else ["2000", "2001", "2002"]]


def test_a_grid_that_holds_all_frames_leaves_nobody_out(frames):
    whole = job(frames, frames / "out.icechunk", input={"align": "cover", "end": "2001"})
    planned = communities.PIPELINE.size(whole)
    outcome = communities.run(whole)
    sizes = RegionStore(whole.output.store).dataset().sizes
    assert sizes["x"] == 70 and (planned.rows, planned.columns) == (sizes["y"], sizes["x"])
    assert outcome.balance["beyond"].tolist() == [0.0, 0.0]
    assert verify(whole).notes == ()
