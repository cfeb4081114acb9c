"""WorldPop: where its files are, and countries fetched from a server with its layout."""

import json
import re

import numpy as np
import pytest
import rasterio

import popdask
from popdask.datasets import Downloads, FetchError, fetch_worldpop
from popdask.datasets.worldpop import PRODUCTS, choose
from popdask.errors import InputError
from tests.fetch.rasters import publish_norway, worldpop


def fetch(site, downloads, folder, years="2000:2002", country="NOR", **options):
    return fetch_worldpop(country, years, folder, url=site.url, downloads=downloads, **options)


FIRST, SECOND = "Global_2000_2020", "Global_2015_2030"
# Resolution, release, kind and UN-adjusted as they are asked for; and files that studies cite.
PUBLISHED = [
    ("1km", None, None, False, f"{FIRST}_1km/2020/PHL/phl_ppp_2020_1km_Aggregated.tif"),
    ("1km", None, None, True, f"{FIRST}_1km_UNadj/2020/KOR/kor_ppp_2020_1km_Aggregated_UNadj.tif"),
    ("100m", None, None, False, f"{FIRST}/2020/IND/ind_ppp_2020.tif"),
    (
        *("100m", None, "constrained", True),
        f"{FIRST}_Constrained/2020/BSGM/NPL/npl_ppp_2020_UNadj_constrained.tif",
    ),
    (
        *("100m", "2000-2020", "constrained", False),
        f"{FIRST}_Constrained/2020/maxar_v1/THA/tha_ppp_2020_constrained.tif",
    ),
    (
        *("100m", None, None, False),
        f"{SECOND}/R2025A/2025/RWA/v1/100m/constrained/rwa_pop_2025_CN_100m_R2025A_v1.tif",
    ),
    (
        *("1km", None, None, False),
        f"{SECOND}/R2025A/2025/SOM/v1/1km_ua/constrained/som_pop_2025_CN_1km_R2025A_UA_v1.tif",
    ),
    (
        *("1km", "R2024B", "unconstrained", False),
        f"{SECOND}/R2024B/2016/GBR/v1/1km_ua/unconstrained/gbr_pop_2016_UC_1km_R2024B_UA_v1.tif",
    ),
    (
        *("100m", "R2024B", None, False),
        f"{SECOND}/R2024B/2025/EGY/v1/100m/constrained/egy_pop_2025_CN_100m_R2024B_v1.tif",
    ),
]


@pytest.mark.parametrize(("resolution", "release", "kind", "adjusted", "path"), PUBLISHED)
def test_files_are_where_they_are_published(resolution, release, kind, adjusted, path):
    country, year = re.search(r"/([a-z]{3})_p[op]p_(\d{4})", path).groups()
    product, years = choose([int(year)], resolution, release, kind, adjusted)
    assert years == [int(year)]
    assert path in product.paths(country, int(year))


def test_no_two_products_share_a_name():
    names = [product.name("NOR") for product in PRODUCTS]
    assert len(set(names)) == len(names)


def test_a_country_becomes_a_cube(site, downloads, tmp_path):
    publish_norway(site, 2000, 2001, 2002)
    fetched = fetch(site, downloads, tmp_path / "norway")
    cube = popdask.open_frames(fetched.pattern)
    assert list(cube.time.dt.year.values) == [2000, 2001, 2002]
    assert cube.rio.crs.to_epsg() == 4326
    with rasterio.open(fetched.frames[2001]) as file:
        people = file.read(1, masked=True)
    assert np.isnan(cube.population.sel(time="2001").values[0, :5, :5]).all()
    np.testing.assert_allclose(
        float(cube.population.sel(time="2001").sum(dtype="float64")),
        people.sum(dtype="float64"),
        rtol=1e-9,
    )


def test_the_pattern_is_a_line_of_a_job_file(site, downloads, tmp_path):
    publish_norway(site, 2000)
    folder = tmp_path / 'a {strange} "folder"'
    fetched = fetch(site, downloads, folder, 2000)
    assert fetched.setting == f"frames = {json.dumps(fetched.pattern, ensure_ascii=False)}"
    assert fetched.pattern.endswith("/nor_ppp_{time:%Y}_1km_Aggregated.tif")
    assert popdask.open_frames(fetched.pattern).sizes["time"] == 1


def test_fetching_again_asks_for_nothing(site, downloads, tmp_path):
    publish_norway(site, 2000, 2001, 2002)
    fetch(site, downloads, tmp_path / "norway", "2000:2001")
    asked = len(site.requests)
    again = fetch(site, downloads, tmp_path / "norway", "2000:2001")
    assert again.new == 0 and len(site.requests) == asked
    more = fetch(site, downloads, tmp_path / "norway", "2000:2002")
    assert more.new == 1 and len(site.requests) == asked + 1
    elsewhere = fetch(site, downloads, tmp_path / "elsewhere", "2000:2002")
    assert elsewhere.new == 3 and len(site.requests) == asked + 1, "from the cache"


def test_the_folder_says_where_from_and_whom_to_credit(site, downloads, tmp_path):
    publish_norway(site, 2000)
    fetched = fetch(site, downloads, tmp_path / "norway", 2000)
    record = json.loads((tmp_path / "norway/fetched.json").read_text())
    ((name, file),) = record["files"].items()
    assert name == fetched.frames[2000].name
    (source,) = file["from"]
    assert source == f"{site.url}/Global_2000_2020_1km/2000/NOR/{name}"
    assert file["sha256"] == file["from"][source]
    credits = (tmp_path / "norway/CREDITS.txt").read_text()
    assert "10.5258/SOTON/WP00670" in credits and "CC BY 4.0" in credits
    assert f"  {name}  (as published)" in credits
    assert "WP00670" in str(fetched.credit)
    left = {path.name for path in (tmp_path / "norway").iterdir()}
    assert left == {name, "fetched.json", "CREDITS.txt", ".fetched.lock"}


def test_a_file_that_was_changed_is_not_written_over(site, downloads, tmp_path):
    publish_norway(site, 2000)
    path = fetch(site, downloads, tmp_path, 2000).frames[2000]
    path.unlink()
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"1km_Aggregated.tif is there and is not as it was fetch"):
        fetch(site, downloads, tmp_path, 2000)
    assert path.read_bytes() == b"mine"


def test_a_file_of_someone_else_is_not_written_over(site, downloads, tmp_path):
    publish_norway(site, 2000)
    (tmp_path / "nor_ppp_2000_1km_Aggregated.tif").write_bytes(b"theirs")
    with pytest.raises(InputError, match="was not fetched by popdask; move it away"):
        fetch(site, downloads, tmp_path, 2000)


def test_a_year_that_is_missing_is_named_with_those_that_are_there(site, downloads, tmp_path):
    publish_norway(site, 2000, 2002)
    with pytest.raises(InputError, match=r"no raster of NOR in 2001 \(http.*\): it has 2000, 2002"):
        fetch(site, downloads, tmp_path / "norway")
    assert list((tmp_path / "norway").glob("*2001*")) == []


def test_a_country_that_is_not_there(site, downloads, tmp_path):
    with pytest.raises(InputError, match=r"no raster of XXX in 2000 .* nor any other year asked"):
        fetch(site, downloads, tmp_path, country="xxx")


@pytest.mark.parametrize("country", ["Norway", "N/R", "../", "", "NO"])
def test_what_is_no_country(site, downloads, tmp_path, country):
    with pytest.raises(InputError, match="expected a code of three letters such as NOR"):
        fetch(site, downloads, tmp_path / "norway", country=country)
    assert not (tmp_path / "norway").exists() and not site.requests


@pytest.mark.parametrize(
    ("years", "options", "said"),
    [
        ("1990:2020", {}, r"no series of WorldPop has all of them: .* has 2000 to 2020"),
        ("2010:2025", {}, r"the series are different models, so fetch one"),
        ("2018:2025", {"release": "2000-2020"}, r"WorldPop 2000-2020, 1km, unconstrained has 2000"),
        ("soon", {}, r"years is 'soon'; expected a span"),
        ("2020", {"resolution": "1m"}, r"resolution is '1m'; expected one of 1km, 100m"),
        ("2020", {"kind": "free"}, r"kind is 'free'; expected one of unconstrained, constrained"),
        ("2020", {"release": "R2025A", "un_adjusted": True}, r"WorldPop has no rasters of release"),
    ],
)
def test_what_worldpop_does_not_have(site, downloads, tmp_path, years, options, said):
    with pytest.raises(InputError, match=said):
        fetch(site, downloads, tmp_path, years, **options)
    assert not site.requests


def test_a_constrained_raster_is_found_in_either_folder(site, downloads, tmp_path):
    path = "Global_2000_2020_Constrained/2020/BSGM/NOR/nor_ppp_2020_constrained.tif"
    site.add(path, worldpop(2020))
    fetched = fetch(site, downloads, tmp_path, 2020, resolution="100m", kind="constrained")
    assert fetched.frames[2020].name == "nor_ppp_2020_constrained.tif"


def test_a_page_instead_of_a_raster_is_not_kept(site, downloads, tmp_path):
    site.add("Global_2000_2020_1km/2000/NOR/nor_ppp_2000_1km_Aggregated.tif", b"<html>Sign in")
    for _ in range(2):
        with pytest.raises(FetchError, match=r"nor_ppp_2000_1km_Aggregated.tif is not a raster"):
            fetch(site, downloads, tmp_path / "norway", 2000)
    assert not list((tmp_path / "norway").glob("*.tif"))
    publish_norway(site, 2000)
    assert fetch(site, downloads, tmp_path / "norway", 2000).new == 1


def test_the_environment_names_a_mirror(site, downloads, tmp_path, monkeypatch):
    publish_norway(site, 2000)
    monkeypatch.setenv("POPDASK_WORLDPOP_URL", f"{site.url}/")
    assert fetch_worldpop("NOR", 2000, tmp_path, downloads=downloads).new == 1


@pytest.mark.parametrize(
    "url", ["mirror.example.org/worldpop", "ftp://mirror.example.org", "http:"]
)
def test_what_is_no_mirror(downloads, tmp_path, monkeypatch, url):
    monkeypatch.setenv("POPDASK_WORLDPOP_URL", url)
    with pytest.raises(
        InputError, match=r"POPDASK_WORLDPOP_URL is '.*'; expected the root of a mi"
    ):
        fetch_worldpop("NOR", 2000, tmp_path, downloads=downloads)


def test_a_broken_country_goes_on_with_the_year_that_broke(site, tmp_path):
    publish_norway(site, 2000, 2001)
    impatient = Downloads(tmp_path / "cache", patience=popdask.datasets.Patience(attempts=1))
    fetch(site, impatient, tmp_path / "norway", 2000)
    site.cuts = [1000]
    with pytest.raises(FetchError, match="what has come is kept, fetch again to go on"):
        fetch(site, impatient, tmp_path / "norway", "2000:2001")
    assert fetch(site, impatient, tmp_path / "norway", "2000:2001").new == 1
    assert site.asked()[-1][1] == "bytes=1000-"


def test_a_file_in_place_of_the_folder(site, downloads, tmp_path):
    (tmp_path / "norway").write_text("")
    with pytest.raises(
        InputError, match=r"norway cannot be the folder of the frames \(File exists"
    ):
        fetch(site, downloads, tmp_path / "norway")
