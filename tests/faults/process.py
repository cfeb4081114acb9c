"""`popdask run` as a process of its own, which tests watch, stop and kill."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import psutil

#: For a machine that has other things to do, too.
PATIENCE_SECONDS = 600


class Process:
    """A run that is under way."""

    def __init__(self, job, *options, command="run", environment=None, gates=None):
        program = "tests.faults.gate" if gates else "popdask"
        environment = (gates.environment if gates else {}) | (environment or {})
        self._gates = gates
        self._popen = subprocess.Popen(
            [sys.executable, "-m", program, command, str(job), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "200"} | environment,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self.lines = []

    def wait_for(self, text):
        """Read what the run says until it says this."""
        for line in self._popen.stdout:
            self.lines.append(line.rstrip())
            if text in line:
                return line
        raise AssertionError(f"never said {text!r}: {self.lines}, {self._popen.stderr.read()}")

    def wait_at(self, stage, point):
        """Wait until the run, or a worker, stands at a gate; give its process."""
        wait_until(lambda: self._gates.who(stage, point) or self._popen.poll() is not None, 0.05)
        found = self._gates.who(stage, point)
        assert found, f"it never came to {stage}, {point}: {self.end()}"
        return found

    def workers(self):
        """All processes that the run has started."""
        return psutil.Process(self.pid).children(recursive=True)

    def kill_workers(self):
        """SIGKILL all workers; others take their places."""
        for worker in workers_of(psutil.Process(self.pid)):
            worker.kill()
            worker.wait(PATIENCE_SECONDS)

    def kill_worker_at(self, stage, point):
        """SIGKILL the worker that stands at a gate, and let the others go on."""
        worker = psutil.Process(self.wait_at(stage, point))
        worker.kill()
        worker.wait(PATIENCE_SECONDS)
        self._gates.open(stage, point)

    def send(self, number, *, group=False):
        """Send a signal to the run, or to its workers too, as a scheduler or a terminal does."""
        (os.killpg if group else os.kill)(self.pid, number)

    def kill(self):
        """SIGKILL the run, wait until its workers are gone too, and give their number."""
        workers = self.workers()
        self.send(signal.SIGKILL)
        self.end()
        wait_until_gone(workers)
        return len(workers)

    def end(self):
        """Wait for the end; give the exit code and what was said, to both outputs."""
        out, err = self._popen.communicate(timeout=PATIENCE_SECONDS)
        return self._popen.returncode, "\n".join([*self.lines, out]), err


@contextmanager
def running(job, *options, **settings):
    """Start a run, and leave no process of it behind."""
    process = Process(job, *options, **settings)
    try:
        yield process
    finally:
        if process._popen.poll() is None:
            process.send(signal.SIGKILL, group=True)
            process.end()


def finish(job, *options, **settings):
    """Run to the end; give the exit code and what was said."""
    return Process(job, *options, **settings).end()


def workers_of(process):
    """The Dask workers among the processes that a run, or a nanny, has started."""
    found = []
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def wait_until_gone(processes):
    """Wait until processes have ended."""
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
    assert not alive, f"left behind: {alive}"


def wait_until(condition, pause=0.002):
    """Look again and again until something is so, with pauses of so many seconds."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came to be so"
        time.sleep(pause)
