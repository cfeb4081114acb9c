"""`popdask fetch` as a process: what it says, and its exit codes."""

import os
import signal
import subprocess
import sys
import threading

import pytest

import popdask
from tests.fetch.rasters import publish_norway, publish_tile

COMMAND = [sys.executable, "-m", "popdask", "fetch"]


@pytest.fixture
def environment(site, tmp_path):
    mirrors = {"POPDASK_WORLDPOP_URL": site.url, "POPDASK_GHSPOP_URL": site.url}
    return os.environ | mirrors | {"POPDASK_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}


@pytest.fixture
def fetch(environment):
    def call(*arguments, **variables):
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment | variables,
            check=False,
        )

    return call


def test_a_country_ends_with_the_line_for_a_job_file(site, fetch, tmp_path):
    publish_norway(site, 2000, 2001)
    site.cuts = [2000]
    folder = tmp_path / "norway"
    done = fetch("worldpop", "NOR", "--years", "2000:2001", "--resolution", "1km", "--to", folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "nor_ppp_2000_1km_Aggregated.tif: the connection broke; going on in 1 s" in lines
    assert "fetched 2 of 2 frames" in lines
    assert any(line.startswith("credit: WorldPop 2000-2020, 1km, unconstrained") for line in lines)
    pattern = f"{folder}/nor_ppp_{{time:%Y}}_1km_Aggregated.tif"
    assert lines[-2:] == ["[input]", f'frames = "{pattern}"']
    assert popdask.open_frames(pattern).sizes["time"] == 2

    again = fetch("worldpop", "NOR", "--years", "2000,2001", "--to", folder)
    assert "fetched 0 of 2 frames; 2 were there and are as they were fetched" in again.stdout

    missing = fetch("worldpop", "NOR", "--years", "2002", "--to", folder)
    assert missing.returncode == 2
    assert missing.stderr.startswith("popdask: WorldPop 2000-2020, 1km, unconstrained has no raste")
    assert len(missing.stderr.splitlines()) == 1


def test_a_rectangle_west_of_greenwich(site, fetch, tmp_path):
    for name in ("R3_C18", "R4_C18"):
        publish_tile(site, name, 2020)
    box = "-4.5,51.2,-2.5,52"
    done = fetch("ghspop", "--bounds", box, "--years", 2020, "--to", tmp_path / "wales")
    assert (done.returncode, done.stderr) == (0, "")
    assert "GHS_POP_E{time:%Y}_GLOBE_R2023A_54009_1000_V1_0_box_-4.5_51.2_-2.5_52.tif" in done.stdout


def test_a_server_that_refuses_is_a_failure_not_a_mistake(site, fetch, tmp_path):
    site.statuses = [403]
    done = fetch("worldpop", "NOR", "--years", "2000", "--to", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("popdask: http://127.0.0.1") and "HTTP 403" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_keeps_what_has_come(site, fetch, environment, tmp_path):
    publish_norway(site, 2000)
    site.wait = threading.Event()
    arguments = ["worldpop", "NOR", "--years", "2000", "--to", str(tmp_path / "norway")]
    process = subprocess.Popen(
        [*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, env=environment
    )
    while not site.requests and process.poll() is None:
        pass
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    site.wait.set()
    assert process.returncode == 130
    assert said == "popdask: stopped; what has come is kept, fetch again to go on.\n"


def test_gpw_says_where_to_sign_in(fetch, tmp_path):
    pytest.importorskip("ee", reason="earthengine-api is not installed")
    box = ("--bounds", "10,59,11,60")
    done = fetch(
        *("gpw", *box, "--years", "2000:2020", "--to", tmp_path / "oslo"),
        HOME=str(tmp_path),
        NO_GCE_CHECK="true",
    )
    assert done.returncode == 2
    assert "sign in once with `earthengine authenticate`" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("worldpop", "Norway", "--years", "2000"), "expected a code of three letters"),
        (("ghspop", "--years", "2000", "--bounds", "10,59,11"), "--bounds is '10,59,11'; expected"),
        (("ghspop", "--years", "2000"), "is fetched by bounds or by tile; give one of them"),
    ],
)
def test_mistakes_are_one_sentence(site, fetch, tmp_path, arguments, said):
    done = fetch(*arguments, "--to", tmp_path / "to")
    assert done.returncode == 2 and said in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not site.requests
