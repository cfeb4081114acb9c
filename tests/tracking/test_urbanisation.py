"""The Degree of Urbanisation: equal to a plain reference and to known answers at any chunking."""

import json
import os
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import rioxarray
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from scipy.ndimage import gaussian_filter, sum_labels

from popdask import UrbanisationRules, degree_of_urbanisation, urban_centres
from popdask.errors import InputError
from popdask.tracking.urban_rules import make_plan
from popdask.tracking.urbanisation import classify as classify_blocks

from .urban_reference import classify

DATA = Path(os.environ.get("POPDASK_DATA") or "/nonexistent")
BELGIUM = DATA / "belgium_1km"
needs_belgium = pytest.mark.skipif(not BELGIUM.exists(), reason="needs POPDASK_DATA")


def on_grid(values: np.ndarray, resolution: float = 1000, crs: str = "EPSG:3035") -> xr.DataArray:
    rows, columns = values.shape[-2:]
    box = (0, 0, columns * resolution, rows * resolution)
    grid = GeoBox.from_bbox(box, crs, resolution=resolution)
    dims = ("time", "y", "x")[-values.ndim :]
    return xr.DataArray(values, xr_coords(grid), dims)


def cut(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    cuts = st.sets(st.integers(1, size - 1), max_size=6)
    return cuts.map(lambda at: tuple(np.diff([0, *sorted(at), size]).tolist()))


@st.composite
def worlds(draw):
    """People with hills, a coast, lakes, gaps; land and built-up area that may be missing."""
    height, width = draw(st.integers(2, 48)), draw(st.integers(2, 48))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def field(smooth):
        noise = gaussian_filter(generator.standard_normal((height, width)), smooth)
        return np.clip(noise / max(noise.std(), 1e-9), -9, 9)  # some worlds are all but flat

    people = np.exp(6.5 + 1.2 * field(draw(st.sampled_from([0, 1, 2]))) + 0.4 * field(0))
    people = people.astype(np.float32)
    sea = field(draw(st.sampled_from([0.7, 2]))) > draw(st.sampled_from([0.3, 1, 3]))
    people[sea & (generator.random(sea.shape) < 0.9)] = 0
    people[generator.random(sea.shape) < draw(st.sampled_from([0, 0.05]))] = np.nan
    land = np.where(sea, generator.choice([0, 0.2, 0.6], sea.shape), 1.0)
    land[generator.random(sea.shape) < draw(st.sampled_from([0, 0.05]))] = np.nan
    built = np.clip(0.1 + 0.1 * field(1), 0, 1) * (land > 0)
    built[generator.random(sea.shape) < draw(st.sampled_from([0, 0.3]))] = 0
    surfaces = draw(st.sampled_from(["both", "both", "land", "built", "none"]))
    return (
        people,
        land if surfaces in ("both", "land") else None,
        np.nan_to_num(built) if surfaces in ("both", "built") else None,
        (draw(cut(height)), draw(cut(width))),
    )


def pick(*values):
    return st.sampled_from(values)


RULES = st.fixed_dictionaries(
    {
        "centre_people": pick(3000, 15_000, 50_000),
        "centre_contiguity": pick(4, 8),
        "centre_built": pick(0.2, None, "optimal"),
        "centre_gap": pick(None, 2, 4, 8, 15),
        "centre_edge": pick("R2023A", "R2023A", "R2022A", None),
        "centre_window": pick(None, None, 3, 5),
        "dense_density": pick(1500, 1000),
        "dense_built": pick(0.2, None, "optimal"),
        "semidense_contiguity": pick(4, 8),
        "semidense_buffer": pick(0, 1, 2),
        "suburban_contiguity": pick(4, 8),
        "low_density": pick(50, 400),
        "cluster_window": pick(None, 3),
        "water_land": pick(0.5, 0.3),
        "water_people": pick(0, 5),
    }
)


@settings(max_examples=30)
@given(worlds(), RULES, pick(1, 2), pick(1, 2, 5), pick(1, 2))
def test_codes_equal_the_reference_at_any_chunking(world, rules, level, reach, steps):
    people, land, built, chunks = world
    if built is None:
        rules = rules | {"centre_built": 0.2, "dense_built": None}
    rules = UrbanisationRules(**rules)
    expected, centres = classify(people, land, built, 1.0, level, rules)
    plan = make_plan(rules, level, built is not None, reach, steps)
    for cuts in (-1, 7, chunks):
        arrays = [None if a is None else da.from_array(a, cuts) for a in (people, land, built)]
        found = classify_blocks(*arrays, np.ones(len(people)), plan)
        np.testing.assert_array_equal(found.compute(scheduler="sync"), expected)
    numbered = classify_blocks(*arrays, np.ones(len(people)), plan, numbered=True)
    np.testing.assert_array_equal(numbered.compute(scheduler="sync"), centres)


@pytest.fixture(scope="module")
def belgium():
    def read(name):
        raster = rioxarray.open_rasterio(BELGIUM / f"{name}.tif", masked=True).squeeze(drop=True)
        return raster.assign_attrs(units="m2") if name != "POP" else raster

    return [read(name) for name in ("POP", "LAND", "BUILT_S")]


PREFIXES = {"UC": "centre", "DUC": "dense", "SDUC": "semidense", "SUrb": "suburban", "RC": "rural"}
PREFIXES |= {"UCL": "cluster", "LDR": "low", "water": "water"}
SUFFIXES = {
    "density_threshold": "density",
    "size_threshold": "people",
    "contiguity_rule": "contiguity",
}
SUFFIXES |= {"built_threshold": "built", "buffer_size": "buffer", "max_gap": "gap"}
SUFFIXES |= {"land_threshold": "land", "pop_threshold": "people"}


def rules_of(parameters):
    """The rules that flexurba's parameters stand for."""
    rules = {}
    for name, value in parameters.items():
        prefix, suffix = name.split("_", 1)
        if suffix in SUFFIXES:
            rules[f"{PREFIXES[prefix]}_{SUFFIXES[suffix]}"] = value
    if parameters.get("UC_gap_fill") is False:
        rules["centre_gap"] = None
    if parameters.get("UC_smooth_edge") is False:
        rules["centre_edge"] = None
    elif "UC_smooth_edge_fun" in parameters:
        rules["centre_edge"] = parameters["UC_smooth_edge_fun"].removeprefix("majority_rule_")
    return UrbanisationRules(**rules)


@needs_belgium
@pytest.mark.parametrize("chunks", [None, (50, 77), {"y": (3, 101, 115), "x": (40, 263)}, (33, 34)])
@pytest.mark.parametrize("number", range(5))
def test_known_cells_of_belgium(belgium, number, chunks):
    known = json.loads((BELGIUM / "known_cells.json").read_text())
    setting = known["settings"][number]
    people, land, built = belgium
    if chunks is not None:
        chunks = chunks if isinstance(chunks, dict) else dict(zip("yx", chunks, strict=True))
        people = people.chunk(chunks)
    codes = degree_of_urbanisation(
        people,
        land=land,
        built=built,
        level=setting["level"],
        rules=rules_of(setting["parameters"]),
    )
    rows, columns = np.transpose(known["cells_row_col_from_0"])
    np.testing.assert_array_equal(codes.values[rows, columns], setting["expected"])


@needs_belgium
@pytest.mark.parametrize("chunks", [(219, 303), (37, 111), (200, 35)])
def test_classes_of_belgium(belgium, chunks):
    people, land, built = belgium
    people = people.chunk(dict(zip("yx", chunks, strict=True)))
    codes = degree_of_urbanisation(people, land=land, built=built)
    kinds, counts = np.unique(codes.values, return_counts=True)
    expected = {10: 2578, 11: 29713, 12: 20955, 13: 2091, 21: 6789, 22: 575, 23: 1511, 30: 2145}
    assert dict(zip(kinds.tolist(), counts.tolist(), strict=True)) == expected


@needs_belgium
def test_centres_of_belgium(belgium):
    people, land, built = belgium
    centres = urban_centres(people.chunk(y=50, x=77), land=land, built=built)
    codes = degree_of_urbanisation(people, land=land, built=built)
    np.testing.assert_array_equal(centres >= 0, codes == 30)
    numbers, first = np.unique(centres.values, return_index=True)
    assert (np.diff(numbers) == 1).all()
    assert (np.diff(first[1:]) > 0).all()
    assert sum_labels(people.fillna(0), centres, numbers[1:]).min() >= 50_000


@needs_belgium
def test_the_optimal_share_of_built_up_land_in_belgium(belgium):
    people, land, built = belgium
    known = {}
    for name, share in (("optimal", "optimal"), ("told", 0.2434054)):
        rules = UrbanisationRules(centre_built=share, dense_built=share)
        known[name] = degree_of_urbanisation(people, land=land, built=built, rules=rules).values
    np.testing.assert_array_equal(known["optimal"], known["told"])


def town(frames=1):
    """A town of 16 cells in the country, that grows."""
    people = np.full((frames, 12, 14), 10.0, np.float32)
    for number, frame in enumerate(people):
        frame[2:6, 3:7] = 2000 + 1500 * number
    return on_grid(people)


def test_frames_are_classified_by_themselves_and_lazily():
    def read(block):
        raise AssertionError("a cell was read")

    people = town(2)
    lazy = people.copy(data=da.from_array(people.values, (1, 5, 5)).map_blocks(read, dtype="f4"))
    codes = degree_of_urbanisation(lazy, land=lazy[0] * 0 + 1)
    assert (codes.dims, codes.shape, codes.dtype) == (people.dims, people.shape, np.int8)
    assert codes.chunks == lazy.chunks
    found = degree_of_urbanisation(people.chunk(y=5, x=4)).values
    assert [frame[3, 4] for frame in found] == [23, 30]
    for number in range(2):
        np.testing.assert_array_equal(found[number], degree_of_urbanisation(people[number]))


def test_units_tell_square_metres_from_shares():
    people = town()
    share = on_grid(np.full(people.shape[1:], 0.4))
    metres = (share * 1e6).assign_attrs(units="m2")
    by_share = degree_of_urbanisation(people, land=share)
    np.testing.assert_array_equal(degree_of_urbanisation(people, land=metres), by_share)
    assert (by_share == 30).sum() == 0  # 32,000 people are no centre, however dense
    unknown = degree_of_urbanisation(people * 0, land=on_grid(np.full(people.shape[1:], np.nan)))
    assert (unknown == 10).all()


@pytest.mark.parametrize(
    ("land", "message"),
    [
        (on_grid(np.full((12, 14), 810_000.0)), "land has the value 810000; .* in m² say so"),
        (
            on_grid(np.full((12, 14), 0.8)).assign_attrs(units="m2"),
            "land is said to be in m² but has no value above 0.8; .* shares of the cell say so",
        ),
        (on_grid(np.full((12, 14), 80.0)), "land has the value 80; .*per cent are divided by"),
        (on_grid(np.full((12, 14), 1.2)), "land has the value 1.2; expected shares"),
        (on_grid(np.full((12, 14), 40.0)).assign_attrs(units="%"), "land has the units '%'"),
        (on_grid(np.ones((6, 7)), 2000), "land has the grid 6 × 7 cells of 2000 .* reproject"),
        (on_grid(np.ones((12, 14)), 1000, "EPSG:3857"), "land has the grid .*EPSG:3857"),
        (on_grid(np.ones((2, 12, 14))).rename(time="year"), "dimension 'year', which population"),
        (on_grid(np.ones((2, 12, 14))), "land has other values of 'time'"),
    ],
)
def test_land_that_does_not_fit_is_refused_in_one_sentence(land, message):
    with pytest.raises(InputError, match=message):
        degree_of_urbanisation(town(), land=land).compute()


def test_other_faults_are_refused():
    with pytest.raises(InputError, match="36 km²; expected cells of 5 km or less"):
        degree_of_urbanisation(on_grid(np.ones((3, 3)), 6000))
    with pytest.raises(InputError, match="level is 3; expected 1 or 2"):
        degree_of_urbanisation(town(), level=3)
    with pytest.raises(InputError, match="rule centre_edge is 'R2020'; expected"):
        UrbanisationRules(centre_edge="R2020")
    with pytest.raises(InputError, match=r"rule water_land is 1.5; expected a share"):
        UrbanisationRules(water_land=1.5)
    with pytest.raises(InputError, match='centre_built is "optimal", which needs the built-up'):
        degree_of_urbanisation(town(), rules=UrbanisationRules(centre_built="optimal"))
    with pytest.raises(InputError, match="holds -1"):
        degree_of_urbanisation(town() - 11).compute()
