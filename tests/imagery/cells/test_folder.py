import dask.array as da
import numpy as np
import pytest
import xarray as xr

from popdask.errors import InputError
from popdask.imagery.cells import (
    list_folder,
    make_cells,
    open_cells,
    read_cells,
    write_cells,
    write_folder,
)
from popdask.imagery.grid import CellGrid


def smooth_cells(n=150, bands=1, people=None, grid=None, dtype="uint8"):
    """Cells with a slope of brightness each, which JPEG keeps to a few grey values."""
    slope = np.add.outer(np.arange(16), np.arange(16)) * 3
    images = (slope + np.arange(n)[:, None, None, None] + np.zeros((bands, 1, 1))).astype(dtype)
    people = np.arange(n) % 7 if people is None else people
    north, east = 61400 - np.arange(n) // 13, 6775 + np.arange(n) % 13
    return make_cells(
        da.from_array(images, chunks=(40, bands, 16, 16)),
        people,
        north,
        east,
        grid or CellGrid(100),
    )


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def sorted_cells(cells):
    return cells.isel(cell=np.lexsort([cells.east, cells.north]))


@pytest.mark.parametrize("bands", [1, 3])
def test_a_folder_comes_back(tmp_path, bands):
    cells = smooth_cells(bands=bands)
    write_folder(cells, tmp_path / "cells")
    names = names_in(tmp_path / "cells")
    assert len(names) == 150
    assert names[5] == "000005_100m_61400_6780_5.jpg"
    found = read_cells(tmp_path / "cells")
    assert found.images.chunks[0] == (64, 64, 22)
    assert found.images.dtype == np.uint8
    assert found.attrs["skipped"] == 0
    found, expected = sorted_cells(found.compute()), sorted_cells(cells.compute())
    np.testing.assert_array_equal(found.people, expected.people)
    np.testing.assert_array_equal(found.north, expected.north)
    np.testing.assert_array_equal(found.east, expected.east)
    assert np.abs(found.images.values.astype(int) - expected.images.values).max() <= 6


def test_people_that_are_almost_whole_come_back(tmp_path):
    cells = smooth_cells().isel(cell=slice(4))
    cells["people"][:] = [2.9999999996, 1e-7, 2.5, 30]
    write_folder(cells, tmp_path / "cells")
    people = sorted(read_cells(tmp_path / "cells").people.values)
    assert people == [0, 2.5, 3, 30]


def test_the_name_of_the_paper_is_read(tmp_path):
    write_folder(smooth_cells(1), tmp_path / "cells")
    (path,) = (tmp_path / "cells").iterdir()
    path.rename(tmp_path / "cells" / "005859_100m_61397_6775_0.jpg")
    cells = read_cells(tmp_path / "cells")
    assert (int(cells.north[0]), int(cells.east[0]), float(cells.people[0])) == (61397, 6775, 0.0)
    assert cells.rio.crs.to_epsg() == 25832
    assert cells.attrs["resolution"] == 100 / 16


def test_other_grids_and_broken_counts_are_named_so(tmp_path):
    grid = CellGrid.preset("eu_1km")
    write_folder(smooth_cells(2, people=np.array([0.25, 7.0]), grid=grid), tmp_path / "cells")
    assert names_in(tmp_path / "cells") == [
        "000000_1km_61400_6775_0.25.jpg",
        "000001_1km_61400_6776_7.jpg",
    ]
    assert sorted(read_cells(tmp_path / "cells", grid).people.values) == [0.25, 7.0]


def test_small_files_are_opened_once(tmp_path):
    write_folder(smooth_cells(), tmp_path / "cells")
    cells = read_cells(tmp_path / "cells")
    write_cells(cells, tmp_path / "cells.zarr")
    expected = cells.compute()
    for path in (tmp_path / "cells").iterdir():
        path.unlink()
    xr.testing.assert_equal(open_cells(tmp_path / "cells.zarr"), expected)


def test_reading_is_lazy(tmp_path):
    write_folder(smooth_cells(80), tmp_path / "cells")
    cells = read_cells(tmp_path / "cells")
    for path in (tmp_path / "cells").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"_100m_\d+_\d+_\d\.jpg cannot be read"):
        cells.images.compute()


def test_names_that_do_not_parse_are_listed_counted_and_skipped(tmp_path):
    folder = tmp_path / "cells"
    write_folder(smooth_cells(5), folder)
    others = [
        "000009_100m_61397_6775.jpg",
        "000010_1km_61397_6775_0.jpg",
        "000011_100m_61397_6775_-3.jpg",
        "notes.txt",
    ]
    for name in [*others, ".DS_Store"]:
        (folder / name).touch()
    with pytest.raises(InputError, match=r"holds 4 files .*notes\.txt.*skip=True"):
        read_cells(folder)
    cells = read_cells(folder, skip=True)
    assert (cells.sizes["cell"], cells.attrs["skipped"]) == (5, 4)
    assert list_folder(folder)[1] == others


def test_wrong_folders_get_one_sentence(tmp_path):
    with pytest.raises(InputError, match="none is no folder"):
        read_cells(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no cell of 100m"):
        read_cells(tmp_path / "empty")
    folder = tmp_path / "cells"
    write_folder(smooth_cells(3), folder)
    first = folder / "000000_100m_61400_6775_0.jpg"
    (folder / "000007_100m_61400_6775_9.jpg").write_bytes(first.read_bytes())
    with pytest.raises(InputError, match=r"holds 1 cells twice, among them 000007_"):
        read_cells(folder)


def test_a_broken_or_other_image_is_named_when_read(tmp_path):
    folder = tmp_path / "cells"
    write_folder(smooth_cells(3), folder)
    (folder / "000001_100m_61400_6776_1.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"000001_100m_61400_6776_1\.jpg cannot be read"):
        read_cells(folder).images.compute()
    write_folder(smooth_cells(3, bands=3), tmp_path / "rgb")
    name = "000001_100m_61400_6776_1.jpg"
    (folder / name).write_bytes((tmp_path / "rgb" / name).read_bytes())
    with pytest.raises(InputError, match=r"has \(3, 16, 16\) bands, rows and columns"):
        read_cells(folder).images.compute()


def test_what_a_folder_cannot_hold_is_not_written(tmp_path):
    unknown = smooth_cells(3, people=np.array([1, np.nan, np.nan]))
    with pytest.raises(InputError, match="2 cells have unknown people"):
        write_folder(unknown, tmp_path / "cells")
    with pytest.raises(InputError, match="2 bands of uint8"):
        write_folder(smooth_cells(3, bands=2), tmp_path / "cells")
    with pytest.raises(InputError, match="1 bands of float32"):
        write_folder(smooth_cells(3, dtype="float32"), tmp_path / "cells")
    with pytest.raises(InputError, match="context of 1"):
        write_folder(smooth_cells(3).assign_attrs(context=1), tmp_path / "cells")
    assert not list(tmp_path.iterdir())
    write_folder(smooth_cells(3), tmp_path / "cells")
    with pytest.raises(InputError, match="cells exists"):
        write_folder(smooth_cells(3), tmp_path / "cells")
