"""Bands from several files lie on the image's pixels, and models see them."""

import dask
import numpy as np
import pytest
import rasterio
import torch

from popdask.config import load_job
from popdask.errors import InputError
from popdask.imagery.loading import Augmentation
from popdask.workflow import population
from popdask.workflow.inputs import open_image
from popdask.workflow.population_inputs import Sources
from tests.pipelines.dots import (
    GRID,
    PIXELS,
    SIDE,
    job,
    people,
    write_job,
    write_raster,
    write_world,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bands")
    write_world(folder)
    write_raster(folder / "buildings.tif", people(0).astype(np.int16), 1)
    return folder


def banded(world, store, **tables):
    bands = [{"name": "buildings", "path": f"{world}/buildings.tif", "resampling": "nearest"}]
    mosaic = f"{world}/mosaic_2015.tif"
    tables = {"input": {"mosaic": mosaic, "time": "2015", "bands": bands}, "truth": None} | tables
    return job(world, store, **tables)


def image_of(settings):
    (paths,) = Sources.of(settings).mosaics.values()
    return open_image(settings, paths, GRID)


def test_a_band_of_cells_lies_on_the_pixels_of_the_image(world, tmp_path):
    image = image_of(banded(world, tmp_path / "dots.icechunk"))
    assert dask.is_dask_collection(image) and image.shape == (2, SIDE * PIXELS, SIDE * PIXELS)
    with rasterio.open(world / "mosaic_2015.tif") as file:
        np.testing.assert_array_equal(image[0], (file.read(1) / np.float32(255)).astype("f4"))
    np.testing.assert_array_equal(image[1], np.kron(people(0), np.ones((PIXELS, PIXELS))))


def test_counts_may_be_taken_as_logarithms(world, tmp_path):
    settings = banded(world, tmp_path / "dots.icechunk")
    band = settings.input.bands[0].model_copy(update={"normalisation": "log"})
    inputs = settings.input.model_copy(update={"bands": (band,)})
    image = image_of(settings.model_copy(update={"input": inputs}))
    expected = np.log1p(np.kron(people(0), np.ones((PIXELS, PIXELS))))
    np.testing.assert_allclose(image[1], expected, rtol=1e-6)


def test_what_a_band_tells_is_learned_and_a_changed_one_is_noticed(world, tmp_path):
    plain = {
        "network": {
            "network": "features",
            "trees": 50,
            "least": 5,
            "rate": 0.2,
            "l2": 0,
            "patches": 0,
        }
    }
    settings = banded(world, tmp_path / "dots.icechunk", presence=plain, count=plain)
    store = population.run(settings).store
    scores = store.table("scores").set_index("model")
    assert scores.loc["popdask", "matthews"] > 0.9
    assert population.plan(settings).done
    write_raster(world / "buildings.tif", people(1).astype(np.int16), 1)
    assert not population.plan(settings)["cells"].done
    write_raster(world / "buildings.tif", people(0).astype(np.int16), 1)


def test_paths_of_bands_are_those_beside_the_job_file(world, tmp_path):
    path = write_job(world / "job.toml", world, tmp_path / "dots.icechunk")
    text = path.read_text()
    path.write_text(text + '[[input.bands]]\nname = "buildings"\npath = "buildings.tif"\n')
    assert load_job(path).input.bands[0].path == str(world / "buildings.tif")


def test_a_band_of_another_place_is_refused(world, tmp_path):
    far = rasterio.transform.from_origin(9e6, 9e6, 100, 100)
    with rasterio.open(
        tmp_path / "far.tif", "w", driver="GTiff", dtype="int16", crs=GRID.crs, transform=far,
        height=5, width=5, count=1,
    ) as file:  # fmt: skip
        file.write(np.ones((5, 5), np.int16), 1)
    bands = [{"name": "far", "path": f"{tmp_path}/far.tif"}]
    inputs = {"mosaic": f"{world}/mosaic_2015.tif", "time": "2015", "bands": bands}
    with pytest.raises(InputError, match="the band 'far', meets no pixel of the image"):
        image_of(banded(world, tmp_path / "dots.icechunk", input=inputs))


def test_brightness_of_other_bands_stays():
    images = torch.rand(6, 3, 4, 4)
    varied = Augmentation.draw(6, np.random.default_rng(0), flips="none", jitter=0.5)
    found = varied.relight(images, slice(0, 6), others=1)
    assert torch.equal(found[:, 2:], images[:, 2:])
    assert torch.equal(found[:, :2], varied.relight(images[:, :2], slice(0, 6)))
    assert not torch.equal(found[:, :2], images[:, :2])
