"""Numbers, times and names as they are printed."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from popdask.cli import console, show
from popdask.plot.style import block_size, cycled
from popdask.report.page import inline_json
from popdask.report.places import latest_stages
from popdask.report.plots import Grid, cell_words
from popdask.store.content import Finished, orphans
from popdask.store.location import Folder, Prefix, locate
from popdask.workflow.frames import extent_text
from popdask.workflow.progress import size_of
from popdask.workflow.runlog import log_name
from tests.cube.raster_files import write_raster
from tests.pipelines import small


def test_sizes_and_times_stand_in_units_that_suit_them():
    sizes = {0: "0 bytes", 4: "4 bytes", 336: "336 bytes", 51_200: "51.2 kB", 2.5e9: "2.5 GB"}
    assert {size: size_of(size) for size in sizes} == sizes
    assert [console.duration(s) for s in (4.21, 100, 600, 9000)] == [
        *("4.2 s", "100 s", "10.0 min", "2.5 h")
    ]
    assert [console.age(seconds) for seconds in (59, 7000, 100_000)] == ["59 s", "2 h", "1 d"]
    assert console.when("2020-05-01T06:00") == "2020-05-01 06:00"
    years = ["2000-01-01T00:00:00", "2001-01-01T00:00:00"]
    assert console.span(years) == "2 frames, from 2000 to 2001"


def test_a_small_job_is_no_job_of_nothing(tmp_path):
    write_raster(tmp_path / "pop_2020.tif", np.ones((2, 3), "float32"))
    settings = small.job(
        tmp_path, tmp_path / "out", input={"frames": f"{tmp_path}/pop_{{year}}.tif"}
    )
    said = "1 × 2 × 3 = 6 cells, in 1 chunk per frame of up to 2 × 3; 24 bytes of float32"
    assert extent_text(settings) == said


def test_long_values_of_settings_are_not_broken():
    rows = [("flow.log", "no", "Look at log(1 + people)"), ("store", "/a/long/path/to/it", "")]
    assert list(show.setting_lines(rows, 32)) == [
        "flow.log  no  Look at log(1 +",
        "              people)",
        "store     /a/long/path/to/it",
    ]


def test_cells_of_a_coarse_map_say_how_large_they_are():
    assert block_size((5956, 4740), 1000) == 6
    assert cell_words(Grid(0.0, 0.0, 4, 4, (0.25, 0.25), (1e-3, 1e-3), True), 2) == "500 × 500 m"


def test_json_in_a_page_ends_no_script():
    assert "</" not in inline_json("</script>")
    assert json.loads(inline_json("</script>")) == "</script>"


def test_a_stage_is_shown_as_it_was_computed_last():
    old = Finished("flow", "all 2 frames", "2026-01-01T00:00:00+00:00", 3.0, 10)
    new = Finished("flow", "1 of 3 frames", "2026-02-01T00:00:00+00:00", 1.0, 5)
    assert [stage.work for stage in latest_stages([old, new])] == ["1 of 3 frames"]


def test_a_place_is_a_bucket_or_a_folder_by_its_name():
    assert locate("s3://people/oslo.icechunk") == Prefix(bucket="people", key="oslo.icechunk")
    assert locate("out/oslo.icechunk") == Folder(path=Path("out/oslo.icechunk"))


def test_records_of_stages_that_are_gone_are_orphans_with_what_is_of_them():
    zones = {"sha256": {"zones.parquet": "5e88"}, "of": "census"}
    records = {"census": {"checksums": {"2020": {"people": "77ef"}}}, "zones": zones}
    written = records | {"export": {"written": ["zones.parquet"]}}
    assert orphans(written, ["estimate"]) == ("census", "zones")
    assert orphans(records, ["estimate", "census"]) == ()


def test_colours_begin_again_and_logs_sort_by_time():
    white = np.ones(3)
    assert np.array_equal(cycled(["#000000", "#ffffff"], 3), [0 * white, white, 0 * white])
    assert log_name(datetime(2026, 3, 1, 2, 30, tzinfo=UTC)) == "20260301T023000.000000Z.jsonl"
