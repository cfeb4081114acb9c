"""Published densities are known by their names, and counts under like names pass."""

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.io.cube import open_frames
from popdask.io.rasters import is_density_name
from tests.cube.raster_files import write_raster

COUNTRIES = st.sampled_from(["nor", "NOR", "gbr", "global"])
YEARS = st.integers(1, 2100).map("{:04d}".format)

#: Of each product, the name of a density and that of the counts beside it.
PAIRS = (
    ("{c}_pd_{y}_1km", "{c}_ppp_{y}_1km"),
    ("{c}_pd_{y}_1km_UNadj", "{c}_ppp_{y}_1km_Aggregated_UNadj"),
    ("popd_{y}AD", "popc_{y}AD"),
    ("POPD_{y}BC", "POPC_{y}BC"),
    ("glds{s}ag", "glp{s}ag"),
    ("noruds{s}ag", "norup{s}ag"),
    ("gpw_v4_population_density_rev11_{y}_30_sec", "gpw_v4_population_count_rev11_{y}_30_sec"),
    ("pop_dens_{y}", "pop_dense_settlements_{y}"),
    ("popdens{y}", "pop{y}"),
    ("oslo_dens_{y}", "oslo_gardens_{y}"),
)


@given(st.sampled_from(PAIRS), COUNTRIES, YEARS)
def test_densities_are_told_from_counts(pair, country, year):
    density, counts = (name.format(c=country, y=year, s=year[2:]) for name in pair)
    assert is_density_name(density) or "density" in density
    assert not is_density_name(counts)


@pytest.mark.parametrize("pair", PAIRS)
def test_files_of_these_names_are_refused_and_taken(tmp_path, pair):
    people = np.array([[2.5, 0.25]], "float32")
    density, counts = (name.format(c="nor", y="2020", s="00") for name in pair)
    path = write_raster(tmp_path / f"{density}.tif", people)
    with pytest.raises(InputError, match="is a density"):
        open_frames({2020: path})
    with rasterio.open(path, "r+") as file:
        file.update_tags(units="people per cell")
    assert float(open_frames({2020: path}).population.sum()) == 2.75
    path = write_raster(tmp_path / f"{counts}.tif", people)
    assert float(open_frames({2020: path}).population.sum()) == 2.75


@how(max_examples=30)
@given(
    name=st.sampled_from(["oslo_pd", "oslo_pd_2020", "ds_oslo", "oslo", "tpd", "pds"]),
    dtype=st.sampled_from(["int16", "float32", "float64"]),
    fraction=st.booleans(),
    declared=st.booleans(),
)
def test_letters_in_a_name_count_with_fractions(tmp_path_factory, name, dtype, fraction, declared):
    people = np.array([[2, 7]], dtype)
    people[0, 0] += 0.5 if fraction and dtype != "int16" else 0
    path = write_raster(tmp_path_factory.mktemp("a") / f"{name}.tif", people)
    if declared:
        with rasterio.open(path, "r+") as file:
            file.update_tags(units="people per cell")
    frames = open_frames({2020: path})
    abbreviated = name.startswith(("oslo_pd", "ds_"))
    if abbreviated and people[0, 0] == 2.5 and not declared:
        with pytest.raises(InputError, match=r"no whole people, and '(pd|ds)' in its name"):
            frames.compute()
    else:
        assert float(frames.population.sum()) == people.sum()
