"""A run ends in order on a signal, wherever it comes, and begins only where files can be opened."""

import os
import signal
import subprocess
import sys
import time

import pytest
import typer

from popdask.cli.console import stoppable


class SignalsAtItsEnd:
    """Sends a signal from a finalizer, where Python drops what is raised."""

    def __init__(self, number):
        self._number = number

    def __del__(self):
        os.kill(os.getpid(), self._number)
        time.sleep(0)  # the signal is handled here


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("send", [lambda n: os.kill(os.getpid(), n), SignalsAtItsEnd])
def test_a_signal_ends_it_and_says_what_is_left(number, send, capsys):
    before = signal.getsignal(number)
    with pytest.raises(typer.Exit) as end, stoppable("oslo", "local", "nothing was changed"):
        send(number)
        time.sleep(60)
    assert end.value.exit_code == 128 + number
    assert capsys.readouterr().err == "popdask: stopped; nothing was changed.\n"
    assert signal.getsignal(number) is before


def test_a_second_sigterm_does_not_disturb_the_end(capsys):
    ended = []
    with pytest.raises(typer.Exit) as end, stoppable("oslo", "local"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            ended.append("in order")
    assert end.value.exit_code == 128 + signal.SIGTERM and ended == ["in order"]


@pytest.mark.parametrize(
    ("limit", "command", "code", "said"),
    [
        ("-n", "plan none.toml", 1, "popdask: at most 32 files may be open at once here; "),
        ("-n", "demo --output none", 1, "popdask: at most 32 files may be open at once here; "),
        ("-n", "--version", 0, ""),
        ("-n", "run --help", 0, ""),
        ("-Sn", "plan none.toml", 2, "popdask: none.toml: there is no such job file"),  # raised
    ],
)
def test_where_few_files_can_be_opened_it_is_said(limit, command, code, said, tmp_path):
    script = f'ulimit {limit} 32 && exec "{sys.executable}" -m popdask {command}'
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said) and done.stderr.count("\n") == bool(said)
    assert bool(done.stdout) == (not code)
