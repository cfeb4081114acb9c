"""`popdask fetch` as a process: what it says, and its exit codes."""

import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

import popdask
from popdask import __main__ as entry
from tests.fetch.rasters import publish_norway, publish_tile

COMMAND = [sys.executable, "-m", "popdask", "fetch"]


@pytest.fixture(autouse=True)
def environment(site, tmp_path, monkeypatch):
    monkeypatch.setenv("POPDASK_WORLDPOP_URL", site.url)
    monkeypatch.setenv("POPDASK_GHSPOP_URL", site.url)
    monkeypatch.setenv("POPDASK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fetch(monkeypatch, capsys):
    """Calls the command line; gives its exit code, its output, and its complaints."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["popdask", "fetch", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            entry.main()
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return call


def test_as_a_process_a_country_ends_with_the_line_for_a_job_file(site, tmp_path):
    publish_norway(site, 2000, 2001)
    site.cuts = [2000]
    folder = tmp_path / "norway"
    arguments = ["worldpop", "NOR", "--years", "2000:2001", "--resolution", "1km", "--to", folder]
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "nor_ppp_2000_1km_Aggregated.tif: the connection broke; trying again in 1 s" in lines
    assert "fetched 2 of 2 frames" in lines
    assert any(line.startswith("credit: WorldPop 2000-2020, 1km, unconstrained") for line in lines)
    pattern = f"{folder}/nor_ppp_{{time:%Y}}_1km_Aggregated.tif"
    assert lines[-2:] == ["[input]", f'frames = "{pattern}"']
    assert popdask.open_frames(pattern).sizes["time"] == 2


def test_fetching_again_says_what_was_there(site, fetch, tmp_path):
    publish_norway(site, 2000, 2001)
    assert fetch("worldpop", "NOR", "--years", "2000", "--to", tmp_path)[0] == 0
    code, said, _ = fetch("worldpop", "NOR", "--years", "2000,2001", "--to", tmp_path)
    assert code == 0 and "fetched 1 of 2 frames; 1 frame as fetched before" in said


def test_a_rectangle_west_of_greenwich(site, fetch, tmp_path):
    for name in ("R3_C18", "R4_C18"):
        publish_tile(site, name, 2020)
    box = "-4.5,51.2,-2.5,52"
    code, said, _ = fetch("ghspop", "--bounds", box, "--years", 2020, "--to", tmp_path / "wales")
    assert code == 0
    assert "/GHS_POP_E{time:%Y}_GLOBE_R2023A_54009_1000_V1_0_box_-4.5_51.2_-2.5_52.tif" in said


def test_a_server_that_refuses_is_a_failure_not_a_mistake(site, fetch, tmp_path):
    site.statuses = [403]
    code, _, complaint = fetch("worldpop", "NOR", "--years", "2000", "--to", tmp_path)
    assert code == 1
    assert complaint.startswith("popdask: http://127.0.0.1") and "HTTP 403" in complaint
    assert len(complaint.splitlines()) == 1


def test_a_cache_that_cannot_be_made_is_one_sentence(site, fetch, tmp_path, monkeypatch):
    publish_norway(site, 2000)
    monkeypatch.setenv("POPDASK_CACHE", "/dev/null/cache")
    code, _, complaint = fetch("worldpop", "NOR", "--years", "2000", "--to", tmp_path)
    assert (
        code == 1 and complaint == "popdask: /dev/null/cache cannot be written (Not a directory).\n"
    )


def test_as_a_process_ctrl_c_keeps_what_has_come(site, tmp_path):
    publish_norway(site, 2000)
    site.wait = threading.Event()
    arguments = ["worldpop", "NOR", "--years", "2000", "--to", str(tmp_path / "norway")]
    # Where these tests run in a shell's background, Ctrl-C is ignored unless it is heard again.
    hearing = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        [*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, preexec_fn=hearing
    )
    while not site.requests and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    site.wait.set()
    assert process.returncode == 130
    assert said == "popdask: stopped; what has come is kept, fetch again to go on.\n"


def test_gpw_says_where_to_sign_in(fetch, tmp_path, monkeypatch):
    pytest.importorskip("ee", reason="earthengine-api is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    for variable in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    box = ("--bounds", "10,59,11,60")
    code, _, complaint = fetch("gpw", *box, "--years", "2000:2020", "--to", tmp_path / "oslo")
    assert code == 2
    assert complaint == (
        "popdask: GPW is fetched by Google Earth Engine, and there are no credentials for it; sign "
        "in once with `earthengine authenticate`, then fetch again.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("worldpop", "Norway", "--years", "2000"), "expected a code of three letters"),
        (("worldpop", "NOR", "--years", "2000"), "has no raster of NOR in 2000"),
        (("ghspop", "--years", "2000", "--bounds", "10,59,11"), "--bounds is '10,59,11'; expected"),
        (("ghspop", "--years", "2000"), "is fetched by bounds or by tile; give one of them"),
    ],
)
def test_mistakes_are_one_sentence(fetch, tmp_path, arguments, said):
    code, _, complaint = fetch(*arguments, "--to", tmp_path / "to")
    assert code == 2 and said in complaint
    assert len(complaint.splitlines()) == 1
