import hashlib
import os
import subprocess
import sys
import unicodedata
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.io.frames import find_frames, frame_time, time_text
from popdask.io.rasters import frame_fingerprint, read_grid
from popdask.io.tables import read_table


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def names(found: dict[np.datetime64, str]) -> dict[str, str]:
    return {str(time)[:10]: Path(path).name for time, path in found.items()}


@pytest.mark.parametrize(
    ("time", "day"),
    [
        ("2006", "2006-01-01"),
        (2006, "2006-01-01"),
        (np.int32(2006), "2006-01-01"),
        ("2006-05", "2006-05-01"),
        ("2006-05-17", "2006-05-17"),
        (datetime(2006, 5, 17), "2006-05-17"),
        (pd.Timestamp("2006-05-17"), "2006-05-17"),
        (np.datetime64("2006"), "2006-01-01"),
    ],
)
def test_times_of_every_kind_become_datetime64(time, day):
    assert frame_time(time) == np.datetime64(day)
    assert frame_time(time).dtype == "datetime64[ns]"


def test_a_year_may_be_a_whole_float():
    assert frame_time(2006.0) == frame_time(np.float32(2006)) == np.datetime64("2006-01-01")


@pytest.mark.parametrize("time", ["soon", "", None, 2006.5, np.datetime64("NaT"), 99999, [2006]])
def test_what_is_not_a_time_is_refused(time):
    with pytest.raises(InputError, match="is not the time of a frame: expected a year"):
        frame_time(time)


@pytest.mark.parametrize("time", ["1500", 1677, "3000", datetime(100, 1, 1), "2262-05"])
def test_a_time_that_cannot_be_held_is_told_with_the_limit(time):
    with pytest.raises(InputError, match="expected one from 1678 to 2262"):
        frame_time(time)


def test_years_that_cannot_be_held_are_left_out_by_start_and_end(tmp_path):
    touch(tmp_path, *(f"popc_{year}AD.tif" for year in ("1600", "1700", "2000", "2300")))
    pattern = f"{tmp_path}/popc_{{year}}AD.tif"
    found = find_frames(pattern, start="1690", end="2100")
    assert list(names(found)) == ["1700-01-01", "2000-01-01"]
    for limits in ({}, {"start": "1700"}, {"end": "2000"}):
        with pytest.raises(InputError, match=r"from 1678 to 2262, .* by \[input\] start and end"):
            find_frames(pattern, **limits)


def test_frames_of_hours_are_told_apart():
    hours = [f"2020-05-01T{hour:02d}:00" for hour in range(24)] + ["2020-05-01T06:30:05"]
    told = [time_text(np.datetime64(hour)) for hour in hours]
    assert len(set(told)) == 25
    assert told[0] == "2020-05-01" and told[-2:] == ["2020-05-01 23:00", "2020-05-01 06:30:05"]


def test_a_year_pattern_finds_years_in_order(tmp_path):
    touch(tmp_path, "pop_2010.tif", "pop_2000.tif", "pop_2005_draft.tif", "pop_20.tif", "a.txt")
    found = find_frames(f"{tmp_path}/pop_{{year}}.tif")
    assert names(found) == {"2000-01-01": "pop_2000.tif", "2010-01-01": "pop_2010.tif"}


def test_a_time_pattern_is_read_with_its_own_format(tmp_path):
    touch(tmp_path, "17.05.2006_pop.tif", "01.04.2006_pop.tif")
    found = find_frames(f"{tmp_path}/{{time:%d.%m.%Y}}_pop.tif")
    assert list(names(found)) == ["2006-04-01", "2006-05-17"]


def test_times_in_folders_and_names_go_together(tmp_path):
    touch(tmp_path, "2006/pop_2006_05.tif", "2007/pop_2007_04.tif", "2007/pop_2006_04.tif")
    found = find_frames(f"{tmp_path}/{{time:%Y}}/pop_{{time:%Y}}_{{time:%m}}.tif")
    assert names(found) == {"2006-05-01": "pop_2006_05.tif", "2007-04-01": "pop_2007_04.tif"}


def test_a_star_matches_the_rest_of_a_name_and_brackets_stand_for_themselves(tmp_path):
    folder = touch(tmp_path / "a[1]", "oslo_pop_2006.tif", "oslo_pop_2007.tif")
    assert len(find_frames(f"{folder}/*_{{year}}.tif")) == 2


@pytest.mark.parametrize(
    ("pattern", "name", "day"),
    [
        ("pop_*{year}.tif", "pop_oslo_2006.tif", "2006-01-01"),
        ("pop_*{year}.tif", "pop_2006.tif", "2006-01-01"),
        ("*{year}*.tif", "ghs_12345_E2006_R2023A.tif", "2006-01-01"),
        ("{year}*.tif", "2006_draft.tif", "2006-01-01"),
        ("pop*{time:%d.%m.%Y}.tif", "pop_v2_17.05.2006.tif", "2006-05-17"),
        ("*{time:%Y}*{time:%m}*.tif", "pop_2006_v_12_7.tif", "2006-12-01"),
        ("*{time:%Y%m%dT%H%M}.tif", "pop_20060517t1200.tif", "2006-05-17"),
        ("{year}*/*{year}.tif", "2006_b/oslo2006.tif", "2006-01-01"),
        ("pop_**{time:%b_%Y}.tif", "pop_May_2006.tif", "2006-05-01"),
    ],
)
def test_a_star_beside_a_time_leaves_it_its_digits(tmp_path, pattern, name, day):
    touch(tmp_path, name)
    for folder in (tmp_path, f"file://{tmp_path}"):
        assert list(names(find_frames(f"{folder}/{pattern}"))) == [day]


def test_a_longer_number_beside_a_star_is_no_time(tmp_path):
    touch(tmp_path, "pop_12006.tif", "pop_2007.tif", "pop_20085.tif")
    assert list(names(find_frames(f"{tmp_path}/pop_*{{year}}*.tif"))) == ["2007-01-01"]


def test_start_and_end_are_both_included(tmp_path):
    touch(tmp_path, *(f"pop_{year}-{month:02d}.tif" for year in (2001, 2002) for month in (1, 7)))
    pattern = f"{tmp_path}/pop_{{time:%Y-%m}}.tif"
    assert list(names(find_frames(pattern, end="2001"))) == ["2001-01-01", "2001-07-01"]
    assert min(names(find_frames(pattern, "2001-07", 2002))) == "2001-07-01"
    assert max(names(find_frames(pattern, end=np.int64(2001)))) == "2001-07-01"
    assert min(names(find_frames(pattern, 2002.0))) == "2002-01-01"
    assert len(find_frames(pattern, "2001-07", "2002-01")) == 2
    assert len(find_frames(pattern, np.datetime64("2001-07-01"), datetime(2002, 1, 1))) == 2


def test_a_url_pattern_is_listed_through_fsspec(tmp_path):
    touch(tmp_path, "pop_2000.tif", "pop_2001.tif")
    found = find_frames(f"file://{tmp_path}/pop_{{year}}.tif")
    assert list(found.values()) == [f"file://{tmp_path}/pop_{year}.tif" for year in (2000, 2001)]


def test_nothing_found_names_the_pattern_and_what_the_folder_holds(tmp_path):
    touch(tmp_path, "a.tif", "b.tif")
    with pytest.raises(InputError, match=r"pop_\{year\}.tif' finds no frame: .* 2 files \(a.tif, "):
        find_frames(f"{tmp_path}/pop_{{year}}.tif")
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        find_frames(f"{tmp_path}/nowhere/pop_{{year}}.tif")
    (tmp_path / "of [2020]?").mkdir()
    touch(tmp_path / "of [2020]?", "c.tif")
    with pytest.raises(InputError, match=r"the folder \S*/of \[2020\]\? holds 1 file \(c.tif\)"):
        find_frames(f"{tmp_path}/of [2020]?/pop_{{year}}.tif")


def test_nothing_within_a_file_is_told_of_the_file(tmp_path):
    cells = xr.DataArray(np.ones((2, 2)), {"y": [1.0, 0.0], "x": [0.0, 1.0]}, ("y", "x"))
    cells.to_dataset(name="people").to_netcdf(tmp_path / "one.nc")
    with pytest.raises(InputError, match=r"finds no frame: \S*one\.nc holds no subdatasets, but"):
        find_frames(f'NETCDF:"{tmp_path}/one.nc":pop_{{year}}')
    with ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(InputError, match=r"finds no frame: \S*empty\.zip holds no files; expected"):
        find_frames(f"/vsizip/{tmp_path}/empty.zip/pop_{{year}}.tif")


def test_a_start_later_than_the_end_is_named(tmp_path):
    touch(tmp_path, "pop_2002.tif", "pop_2006.tif")
    with pytest.raises(InputError, match="start='2006' is later than end='2002'"):
        find_frames(f"{tmp_path}/pop_{{year}}.tif", start="2006", end="2002")


def test_nothing_between_start_and_end_says_what_there_is(tmp_path):
    touch(tmp_path, "pop_2000.tif", "pop_2010.tif")
    with pytest.raises(InputError, match="2 frames from 2000-01-01 to 2010-01-01, none of them"):
        find_frames(f"{tmp_path}/pop_{{year}}.tif", start="2020")


def test_two_files_of_one_time_are_refused_by_name(tmp_path):
    touch(tmp_path, "a_2000.tif", "b_2000.tif")
    with pytest.raises(InputError, match=r"both .*a_2000.tif and .*b_2000.tif for 2000-01-01"):
        find_frames(f"{tmp_path}/*_{{year}}.tif")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("pop.tif", "has no time in it"),
        ("pop_{month}.tif", r"has the field \{month\}"),
        ("pop_{time}.tif", r"has the field \{time\}"),
        ("pop_{year.tif", "is wrong"),
        ("{year}/pop_{time:%Y-%m}.tif", "reads %Y in several formats"),
        ("gopher://host/pop_{year}.tif", "cannot be reached"),
    ],
)
def test_a_wrong_pattern_is_refused(pattern, message):
    with pytest.raises(InputError, match=message):
        find_frames(pattern)


def test_a_fingerprint_follows_the_contents(tmp_path):
    path = tmp_path / "pop.tif"
    path.write_bytes(b"people")
    before = frame_fingerprint(str(path))
    assert before["size"] == 6
    assert before["sha256"] == hashlib.sha256(b"people").hexdigest()
    assert datetime.fromisoformat(before["mtime"]).timestamp() == pytest.approx(
        path.stat().st_mtime
    )
    remote = frame_fingerprint(f"file://{path}")
    assert remote == {"size": 6, "mtime": None, "sha256": before["sha256"]}
    path.write_bytes(b"peoplE")
    assert frame_fingerprint(str(path))["sha256"] != before["sha256"]
    with pytest.raises(InputError, match=r"nowhere.tif does not exist"):
        frame_fingerprint(str(tmp_path / "nowhere.tif"))
    with pytest.raises(InputError, match=r"zones.gpkg does not exist; expected zones; correct"):
        frame_fingerprint(str(tmp_path / "zones.gpkg"), "zones")


@pytest.mark.parametrize(
    ("end", "mend"), [("tif", r"such as .*2006\.tif/\*"), ("zarr", "open_cube")]
)
def test_a_folder_in_the_place_of_a_frame_is_named(tmp_path, end, mend):
    (tmp_path / f"pop_2006.{end}").mkdir()
    with pytest.raises(InputError, match=rf"pop_2006\.{end} is a folder; .*{mend}"):
        frame_fingerprint(str(tmp_path / f"pop_2006.{end}"))


@pytest.mark.parametrize("name", ["pop_{year}.zarr", "pop.zarr#{year}", "pop.zarr#pop_{year}.tif"])
def test_a_pattern_of_zarr_groups_is_named(tmp_path, name):
    with pytest.raises(InputError, match=r"it names a Zarr group; .*open_cube"):
        find_frames(f"{tmp_path}/{name}")


@pytest.mark.parametrize("name", ["of.zarr/pop_{year}.tif", "pop.zarr-{year}.tif"])
def test_a_pattern_beside_or_in_a_zarr_group_is_of_files(tmp_path, name):
    touch(tmp_path, "of.zarr/other.tif")
    with pytest.raises(InputError, match=r"finds no frame: the folder .* holds 1 file"):
        find_frames(f"{tmp_path}/{name}")


#: Looks for files as a user who may not search the folder that they lie in.
AS_NOBODY = """
import os, sys
import rasterio
from popdask.errors import InputError
from popdask.io.frames import find_frames
from popdask.io.rasters import frame_fingerprint, read_grid
if os.geteuid() == 0:
    os.setuid(65534)
os.chdir("/")
looks = (find_frames, "sub/pop_{year}.tif"), (read_grid, "pop.tif"), (frame_fingerprint, "pop.tif")
for look, name in looks:
    try:
        look(f"{sys.argv[1]}/{name}")
    except InputError as error:
        print(error)
"""


def test_a_closed_folder_is_named():
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        closed = touch(Path(folder), "closed/sub/pop_2000.tif", "closed/pop.tif") / "closed"
        closed.chmod(0)
        child = [sys.executable, "-c", AS_NOBODY, str(closed)]
        said = subprocess.run(child, capture_output=True, text=True, check=True).stdout
        closed.chmod(0o755)
    named = [f"{closed}/{name} cannot be looked up" for name in ("sub", "pop.tif", "pop.tif")]
    assert [line.partition(" (permission denied)")[0] for line in said.splitlines()] == named


#: Formats that tell a day, and those that tell the first day of a year, a month or a week.
FORMATS = ("%Y%m%d", "%d.%m.%y", "%Y%j", "%d%b%Y", "%G-W%V-%u", "%Y-%W-%w")
COARSE = {"%Y": ("%j", "001"), "%Y-%m": ("%d", "01"), "%G-W%V": ("%u", "1"), "%Y_%W": ("%u", "1")}


@given(st.dates(date(1970, 1, 5), date(2068, 12, 28)), st.sampled_from([*FORMATS, *COARSE]))
def test_a_time_is_read_as_it_was_written(day, form):
    with TemporaryDirectory() as folder:
        name = f"pop_{day.strftime(form)}.tif"
        first_days = COARSE.get(form)
        if form == "%Y_%W" and day.strftime("%W") == "00":
            return  # days before the first Monday are in no week of their year
        (found,) = find_frames(f"{touch(Path(folder), name)}/pop_{{time:{form}}}.tif")
    moment = pd.Timestamp(found)
    assert f"pop_{moment.strftime(form)}.tif" == name
    assert moment.strftime(first_days[0]) == first_days[1] if first_days else moment.date() == day


@pytest.mark.parametrize(
    ("pattern", "file"),
    [
        ("pop_{time:%Y-%m-%dT%H%z}.tif", "pop_2006-03-06T02+0200.tif"),
        ("{time:%G}/w{time:%V}.tif", "2006/w10.tif"),
    ],
)
def test_times_are_read_with_zones_and_of_several_parts(tmp_path, pattern, file):
    assert list(names(find_frames(f"{touch(tmp_path, file)}/{pattern}"))) == ["2006-03-06"]


@pytest.mark.parametrize("form", ["%YQ%q", "%s", "%Y%", "%Y-%Q"])
def test_a_format_that_reads_no_time_is_refused(tmp_path, form):
    with pytest.raises(InputError, match=r"has the format '.*', by which no time is read"):
        find_frames(f"{tmp_path}/pop_{{time:{form}}}.tif")


@pytest.mark.parametrize("pattern", ["NFC", "NFD"])
@pytest.mark.parametrize("folder", ["NFC", "NFD"])
@pytest.mark.parametrize("file", ["NFC", "NFD"])
def test_accents_are_found_however_they_are_written(tmp_path, pattern, folder, file):
    place = tmp_path / unicodedata.normalize(folder, "Länder")
    touch(place, unicodedata.normalize(file, "bevölkerung_2006.tif"), "bevoelkerung_2011.tif")
    wanted = unicodedata.normalize(pattern, "Länder/bevölkerung_{year}.tif")
    assert list(names(find_frames(f"{tmp_path}/{wanted}"))) == ["2006-01-01"]


@pytest.mark.parametrize("read", [frame_fingerprint, read_grid, read_table])
def test_pipes_and_devices_are_no_files(tmp_path, read):
    os.mkfifo(tmp_path / "pop.tif")
    for path in (str(tmp_path / "pop.tif"), "/dev/zero"):
        with pytest.raises(InputError, match=r"is a pipe or a device, not a file"):
            read(path)


@pytest.mark.parametrize(
    "host", ["", "[::1", "h:99999", "h:port", "...", "h:0", " ", "a b", "a\tb"]
)
def test_a_url_without_a_host_is_refused(host):
    for look in (find_frames, frame_fingerprint):
        with pytest.raises(InputError, match=r"has no host, or no port, that can be reached"):
            look(f"http://{host}/pop_{{year}}.tif")
