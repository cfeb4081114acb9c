"""The pictures of a finished run: all there, whole, and no run too small for them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from popdask.blocks.sampling import sample_cells
from popdask.config import CommunitiesJob
from popdask.errors import InputError
from popdask.store import RegionStore
from popdask.store.content import MAIN
from popdask.synthetic import City, World
from popdask.tracking.encoding import reconstruct, stack_features
from popdask.workflow import communities, communities_outputs
from popdask.workflow.settlements import CHANGE_WORDS

EVERY = [
    *("world", "settlements", "population", "flow", "speed", "divergence", "laplacian"),
    *(
        "classes",
        "communities",
        "class_panels",
        "tracks",
        "change",
        "growth",
        "assignment",
        "means",
    ),
    *("loss", "sse", "silhouettes", "error", "direction", "speed_error", "reconstruction"),
]


def write_frames(folder, frames):
    """Two towns: one moves east, the other stays."""
    path = tuple((20.0, 20.0 + 2 * year) for year in range(frames))
    mover = City(0, path, (9000,) * frames, ((8.0, 8.0),) * frames)
    stayer = City(1, ((45.0, 25.0),) * frames, (5000,) * frames, ((7.0, 7.0),) * frames)
    World((mover, stayer), shape=(66, 70), frames=frames).write(folder)


def make_job(folder, **tables):
    settings = {
        "name": "small",
        "input": {"frames": f"{folder}/frames/world_{{time:%Y}}.tif"},
        "encoder": {"epochs": 4},
        "classes": {"k": 3, "sample": 2000},
        "communities": {"eps": 3, "min_samples": 8, "min_density": 10},
        "tracks": {"movement": True},
        "output": {"store": f"{folder}/small.icechunk"},
    }
    for name, table in tables.items():
        settings[name] = settings.get(name, {}) | table
    return CommunitiesJob.model_validate(settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    write_frames(folder / "frames", 3)
    job = make_job(folder)
    communities.run(job)
    return job


@pytest.fixture(scope="module")
def drawn(finished):
    return communities.PIPELINE.draw(finished)


def test_every_picture_is_drawn(finished, drawn):
    folder = finished.export_folder / "figures"
    assert drawn == [folder / f"small_{name}.png" for name in EVERY]
    for path in drawn:
        picture = imread(path)
        assert min(picture.shape[:2]) > 300 and picture[..., :3].std() > 0.02
    assert sorted(folder.iterdir()) == sorted(drawn), "and nothing else"


def test_the_same_run_gives_the_same_pictures(finished, drawn, tmp_path):
    other = finished.model_copy(
        update={"output": finished.output.model_copy(update={"folder": str(tmp_path)})}
    )
    for one, again in zip(drawn, communities.PIPELINE.draw(other), strict=True):
        assert again.parent == tmp_path / "figures"
        assert one.read_bytes() == again.read_bytes(), one.name


@pytest.mark.parametrize(
    "frames, tables, missing",
    [
        (1, {}, {"change", "growth", "assignment"}),
        (
            2,
            {
                "encoder": {"epochs": 4, "scope": "frame", "symmetric": True, "hidden": [128, 16]},
                "classes": {"k": "auto", "sample": 300},
                "communities": {"eps": 1, "min_samples": 5000},
                "tracks": {"movement": False},
            },
            {"growth"},
        ),
    ],
    ids=["one frame", "a symmetric model for each frame, and no communities"],
)
def test_odd_runs_have_pictures_too(frames, tables, missing, tmp_path):
    write_frames(tmp_path / "frames", frames)
    job = make_job(tmp_path, **tables)
    communities.run(job)
    names = [path.stem.removeprefix("small_") for path in communities.PIPELINE.draw(job)]
    assert names == [name for name in EVERY if name not in missing]
    asked = make_job(tmp_path, **tables | {"tracks": {"movement": True}})
    if asked != job:  # else all its pictures were drawn above
        drawn = communities_outputs.illustrate(asked, RegionStore(job.output.store), MAIN)
        titles = [picture.title for picture in drawn]
        assert CHANGE_WORDS["growth"][0] not in titles, "before it is followed"


def test_cells_are_reconstructed_as_the_raster_is(finished):
    """What is drawn of sampled cells is what reconstructing the whole raster gives there."""
    region = RegionStore(finished.output.store)
    found = region.dataset()
    ((encoder, model, frames),) = communities_outputs._models(finished, region, found).values()
    assert finished.classes.hold > 0, "so that the classes are those held"
    part, hold = found.isel(time=frames), finished.classes.hold
    sample = communities_outputs._sample(part, encoder, model, 500, hold)
    features = stack_features(found["population"], found[["u", "v"]])
    whole = reconstruct(features, encoder, mask=found["classes"] >= 0).compute()
    time, y, x = sample_cells(found["classes"] >= 0, 500).T
    expected = whole.transpose("time", "y", "x", "channel").values[time, y, x]
    np.testing.assert_allclose(sample.reconstruction, expected, atol=1e-3 * np.abs(expected).max())
    # Windows are encoded one by one, the raster as a convolution: the last bits differ.
    assert (sample.classes == found["classes"].values[time, y, x]).mean() > 0.99
    loose = replace(sample, hold=0.0).classes
    assert (loose != sample.classes).any(), "some are held that would change"
    people = np.minimum(found["population"].values[time, y, x], 1000)
    np.testing.assert_array_equal(sample.features[:, 0], people)


def test_a_job_that_was_not_run_is_named(finished, tmp_path):
    write_frames(tmp_path / "frames", 1)
    with pytest.raises(InputError, match="run the job first"):
        communities.PIPELINE.draw(make_job(tmp_path))
    other = finished.model_copy(
        update={"encoder": finished.encoder.model_copy(update={"scope": "frame"})}
    )
    with pytest.raises(InputError, match=re.escape("scope 'frame': run the job")):
        communities.PIPELINE.draw(other)
