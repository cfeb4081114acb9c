"""The log of a run: what it tells, how it ends, and what it never holds."""

import json
from pathlib import Path

import pytest

from popdask.errors import InputError
from popdask.io.paths import without_keys
from popdask.store import RegionBusyError
from popdask.workflow import communities
from popdask.workflow.progress import Reporter
from popdask.workflow.runlog import End, RunLog, log_place, read_runs
from tests.pipelines.small import job


class Heard(Reporter):
    """Keeps what it is told."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def region(tmp_path):
    """A job of which nothing is run."""
    return job(tmp_path, tmp_path / "small.icechunk")


def lines(log):
    return [json.loads(line) for line in Path(str(log)).read_text().splitlines()]


def test_the_log_of_a_run_tells_stages_bytes_and_people(frames, tmp_path):
    settings = job(frames, tmp_path / "small.icechunk", encoder={"epochs": 1})
    with RunLog(settings) as log:
        store = communities.run(settings, log).store
    told = lines(log)
    assert Path(str(log)).parent == tmp_path / "small.icechunk.log"
    assert {line["region"] for line in told} == {"small"}
    assert all(line["time"].endswith("+00:00") for line in told)
    assert [line["event"] for line in (told[0], told[-1])] == ["begin", "end"]
    (run,) = store.history()
    ends = [line for line in told if line["event"] == "stage-end"]
    expected = [(stage.stage, stage.bytes) for stage in run.stages]
    assert [(line["stage"], line["bytes"]) for line in ends] == expected
    assert all(line["ok"] and line["seconds"] > 0 for line in ends)
    end = told[-1]
    assert (end["outcome"], end["run"]) == ("done", run.tag)
    assert end["bytes"] == sum(stage.bytes for stage in run.stages)
    assert [frame["total"] for frame in end["people"]] == [14000.0] * 4

    with RunLog(settings) as again:
        communities.run(settings, again)
    events = [line["event"] for line in lines(again)]
    assert [event for event in events if event != "note"] == ["begin", "end"]
    assert lines(again)[-1]["outcome"] == "nothing to do"
    found = list(read_runs(settings))
    assert [attempt.outcome for attempt in found] == [End.NOTHING, End.DONE]
    assert all(attempt.good for attempt in found)


@pytest.mark.parametrize(
    ("error", "outcome", "sentence"),
    [
        (InputError("frames are missing."), End.WRONG, "frames are missing."),
        (OSError("no space\n left"), End.FAILED, "OSError: no space left"),
        (ZeroDivisionError(), End.FAILED, "ZeroDivisionError: no reason given"),
        (KeyboardInterrupt(), End.STOPPED, "stopped by a signal"),
    ],
)
def test_an_error_is_put_down_and_goes_on_its_way(region, error, outcome, sentence):
    with pytest.raises(type(error)), RunLog(region) as log, log.stage("flow", "4 frames"):
        raise error
    _, begin, stage, end = lines(log)
    assert (begin["stage"], stage["stage"], stage["ok"]) == ("flow", "flow", False)
    assert (end["outcome"], end["error"]) == (outcome, sentence)
    assert ("test_runlog.py" in end.get("traceback", "")) == (outcome is End.FAILED)
    (attempt,) = read_runs(region)
    assert (attempt.outcome, attempt.error, attempt.good) == (outcome, sentence, False)


def test_one_that_found_the_region_held_is_no_attempt(region):
    with RunLog(region):
        pass
    with pytest.raises(RegionBusyError), RunLog(region) as log:
        raise RegionBusyError("another run holds it.")
    assert lines(log)[-1]["outcome"] == "busy"
    assert [attempt.outcome for attempt in read_runs(region)] == [End.NOTHING]


def test_a_stage_alone_is_no_attempt_at_the_region(region):
    with RunLog(region, only="flow") as log:
        pass
    assert lines(log)[0]["only"] == "flow"
    assert list(read_runs(region)) == []


def test_a_log_without_an_end_or_with_half_a_line_is_of_a_killed_run(region):
    log = RunLog(region).__enter__()
    log.note("on the way")
    (first,) = read_runs(region)
    with Path(str(log)).open("a") as file:
        file.write('{"event": "end", "outcome": "do')
    assert [first] == list(read_runs(region))
    assert (first.outcome, first.good, first.error) == (End.KILLED, False, None)


def test_a_log_that_ends_within_a_letter_is_of_a_killed_run(region):
    with RunLog(region) as log:
        pass
    path = Path(str(log))
    path.write_bytes(path.read_bytes().splitlines()[0] + '\n{"region": "Å'.encode()[:-1])
    (attempt,) = read_runs(region)
    assert attempt.outcome is End.KILLED


def test_logs_of_many_regions_in_one_folder(region, tmp_path):
    with RunLog(region, folder=tmp_path / "logs") as log:
        pass
    assert Path(str(log)).parent == tmp_path / "logs" / "small.log"
    assert len(list(read_runs(region, tmp_path / "logs"))) == 1
    assert list(read_runs(region)) == []


@pytest.mark.parametrize("name", ["..", "."])
def test_a_name_does_not_lead_out_of_the_folder(region, tmp_path, name):
    named = region.model_copy(update={"name": name})
    with RunLog(named, folder=tmp_path / "logs") as log:
        pass
    assert Path(str(log)).resolve().is_relative_to(tmp_path / "logs")


def test_a_log_that_cannot_be_written_is_told_of_once_and_the_run_goes_on(region, tmp_path):
    (tmp_path / "small.icechunk.log").write_text("a file where the folder should be")
    heard = Heard()
    with RunLog(region, heard) as log:
        log.note("on the way")
    assert len(heard.notes) == 2 and heard.notes[1] == "on the way"
    assert "cannot be written" in heard.notes[0] and "small.icechunk.log" in heard.notes[0]


def test_removed_logs_are_gone(region):
    place = log_place(region)
    for _ in range(2):
        with RunLog(region):
            pass
    newest, oldest = place.names()
    place.remove(oldest)
    assert place.names() == [newest]


def test_no_secret_is_put_down(region, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("SOME_TOKEN", "short")
    with pytest.raises(OSError, match="mypassword"), RunLog(region) as log:
        log.note("reading https://me:mypassword@host/a_2001.tif?signature=abcd now")
        raise OSError("https://me:mypassword@host/a.tif said wJalrXUtnFEMI is unknown")
    text = Path(str(log)).read_text()
    assert not any(secret in text for secret in ("mypassword", "wJalrXUtnFEMI", "abcd"))
    assert "https://host/a_2001.tif" in text and "$AWS_SECRET_ACCESS_KEY is unknown" in text
    assert without_keys("a short stop") == "a short stop"
