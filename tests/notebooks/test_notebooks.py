"""The notebooks, run as a reader runs them: a kernel of their own, in an empty folder."""

import base64
import io
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from popdask import RegionStore

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
PATIENCE_SECONDS = 900  # of a cell, on a machine that does other things
WRONG = "raises-exception"


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_all_are_there():
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("name", NAMES)
def test_they_hold_no_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert cell.outputs == [] and cell.execution_count is None
        assert set(cell.metadata) <= {"tags"}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@pytest.mark.parametrize("name", NAMES)
def test_they_are_short_and_speak(name):
    notebook = read(name)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert max(lengths) <= 25 and sum(lengths) <= 90


def test_files_to_tracks_is_about_twenty_lines():
    lines = [
        line
        for cell in code_cells(read("01-communities"))
        for line in cell.source.splitlines()
        if line.strip()
    ]
    steps = lines.index("tracks = popdask.tracks(links, communities, ends=ends)") + 1
    assert steps <= 24


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One folder for all: the last notebook reads what the second has left."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def run(place):
    """Runs a notebook once; gives it with its outputs, or fails again as it failed."""
    done = {}

    def execute(name):
        if name not in done:
            notebook = read(name)
            resources = {"metadata": {"path": str(place)}}
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            client = NotebookClient(notebook, timeout=PATIENCE_SECONDS, resources=resources)
            try:
                client.execute(env=environment)
                done[name] = notebook
            except CellExecutionError as error:
                done[name] = error
        if isinstance(done[name], CellExecutionError):
            raise done[name]
        return done[name]

    return execute


def outputs(notebook, kind):
    return [out for cell in code_cells(notebook) for out in cell.outputs if out.output_type == kind]


def shown(notebook, form="text/plain"):
    kinds = ("execute_result", "display_data")
    data = [out.data for kind in kinds for out in outputs(notebook, kind)]
    return [found[form] for found in data if form in found]


@pytest.mark.parametrize("name", NAMES)
def test_they_run_to_their_end_without_a_warning(run, name):
    notebook = run(name)
    told = [out.text for out in outputs(notebook, "stream") if out.name == "stderr"]
    # tqdm, which UMAP imports, says where there are no ipywidgets.
    assert [text for text in told if "IProgress not found" not in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_wrong_on_purpose_ends_in_one_sentence(run, name):
    for cell in code_cells(run(name)):
        wrong = [out for out in cell.outputs if out.output_type == "error"]
        assert bool(wrong) == (WRONG in cell.metadata.get("tags", []))
        for out in wrong:
            assert len(out.traceback) == 1 and out.traceback[0].startswith("InputError: ")


@pytest.mark.parametrize(("name", "count"), [("01", 2), ("02", 2), ("04", 5), ("05", 2)])
def test_they_show_pictures(run, name, count):
    (full,) = [full for full in NAMES if full.startswith(name)]
    pictures = shown(run(full), "image/png")
    assert len(pictures) == count
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert min(image.size) > 100
            assert len(image.convert("L").getcolors()) > 20, "more than an empty sheet"


def test_two_workers_give_the_same_answer_as_none(run):
    notebook = run("03-connect-to-a-scheduler")
    assert shown(notebook)[-1] == "True"
    told = "".join(out.text for out in outputs(notebook, "stream"))
    assert "✓ tracks" in told and "http://127.0.0.1" in told
    by_worker = next(text for text in shown(notebook) if text.lstrip().startswith("count"))
    assert by_worker.count("tcp://127.0.0.1:") == 2


def test_a_new_year_costs_two_frames(run):
    plans = [text for text in shown(run("02-your-own-region")) if text.startswith("Plan(")]
    assert "population: all 5 frames" in plans[0]
    assert "tracks: done" in plans[1]
    assert "population: 1 of 6 frames" in plans[2] and "classes: 2 of 6 frames" in plans[2]


def test_networks_beat_the_mean(run):
    table = next(text for text in shown(run("04-population-from-images")) if "matthews" in text)
    matthews = {line.split()[0]: float(line.split()[2]) for line in table.splitlines()[2:]}
    assert matthews["networks"] > 0.4 > matthews["mean"]


def test_duckdb_counts_the_events_of_the_store(run, place):
    run("05-read-the-results")
    events = RegionStore(place / "out" / "mine.icechunk").table("tracks")["event"]
    counted = next(t for t in shown(run("05-read-the-results")) if "appear" in t and "year" in t)
    appeared = [int(line.split()[1]) for line in counted.splitlines()[2:]]
    assert sum(appeared) == (events == "appear").sum()
