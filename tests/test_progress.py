"""What a run tells: lines in a log, a moving bar on a terminal, nothing where nobody asked."""

import io
import re
import time

import pytest
from distributed import Client, Event, LocalCluster, wait
from rich.console import Console

from popdask.workflow.progress import POLL_SECONDS, ConsoleReporter, Reporter


def console(**options) -> Console:
    return Console(file=io.StringIO(), width=100, **options)


def lines(out: Console) -> list[str]:
    return out.file.getvalue().splitlines()


def with_time(out: Console) -> list[str]:
    return [line for line in lines(out) if re.search(r"\d+\.\d s$", line)]


def passes(_: int, gate: Event) -> bool:
    return gate.wait(600)


def until_drawn(out: Console, text: str) -> None:
    deadline = time.monotonic() + 600
    while text not in out.file.getvalue():
        assert time.monotonic() < deadline, f"{text} is not drawn"
        time.sleep(POLL_SECONDS / 5)


def test_a_log_has_one_line_with_the_time_of_every_stage():
    out = console()
    reporter = ConsoleReporter(out)
    for name, work in (("population", "3 frames"), ("links", "2 pairs")):
        with reporter.stage(name, work):
            reporter.note(f"{name} under way")
    told = with_time(out)
    assert [line.split()[:4] for line in told] == [
        ["✓", "population", "3", "frames"],
        ["✓", "links", "2", "pairs"],
    ]
    assert "\x1b" not in out.file.getvalue(), "a log holds no control codes"
    seen = lines(out)
    assert seen.index("population under way") < seen.index(told[0])
    assert seen.index(told[0]) < seen.index("links under way")


def test_a_long_note_stays_one_line():
    out = console()
    ConsoleReporter(out).note("word " * 60)
    assert lines(out) == ["word " * 60]


def test_a_note_is_told_as_it_is():
    out = console()
    ConsoleReporter(out).note("out/x[red]/[/y].toml")
    assert lines(out) == ["out/x[red]/[/y].toml"]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_stage_that_fails_is_not_ticked_off(terminal):
    out = console(force_terminal=terminal)
    with pytest.raises(ZeroDivisionError), ConsoleReporter(out).stage("links", "2 pairs"):
        raise ZeroDivisionError
    assert "✓" not in out.file.getvalue()


def test_a_terminal_sees_the_tasks_of_the_cluster_go_by():
    """Tasks of an earlier stage are not counted again."""
    out = console(force_terminal=True)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        wait(client.map(abs, range(100, 105)))
        with ConsoleReporter(out).stage("flow", "3 frames"):
            gate = Event(client=client)
            held = client.map(passes, range(7), gate=gate)
            until_drawn(out, "0/7 tasks")
            gate.set()
            until_drawn(out, "7/7 tasks")
            wait(held)
    drawn = out.file.getvalue()
    assert "━" in drawn
    assert re.search(r"✓\S* flow +3 frames +\d+\.\d s\n$", drawn)


def test_a_terminal_without_a_cluster_sees_the_stage_turn():
    out = console(force_terminal=True)
    with ConsoleReporter(out).stage("tracks", "3 frames"):
        pass
    drawn = out.file.getvalue()
    assert "tracks" in drawn.split("✓")[0], "the bar is there before the stage is done"
    assert "/" not in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn), "nothing is counted"


def test_the_base_reporter_says_nothing(capfd):
    with Reporter().stage("flow", "3 frames"):
        Reporter().note("under way")
    assert capfd.readouterr() == ("", "")
