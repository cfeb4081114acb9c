"""Gates: points of a run at which it waits until a test lets it go on, stops it or kills it.

A test shuts a gate by a file. The run is started by this module in place of popdask, and its
workers load it too (Dask's ``preload``): who comes to a shut gate writes down its process, and
waits until the file is gone. The points of a stage are its ``start``, the end of a ``task`` on a
worker, and of one that has stored a chunk (``store``), and ``commit``, when all is written and
nothing committed.
"""

import os
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import get_native_id

#: Names the folder of the gates, for the processes of a run.
FOLDER = "TEST_GATES"
PAUSE_SECONDS = 0.02
#: How long a run waits for an answer of a scheduler, which is slow where the machine is busy.
PATIENCE_SECONDS = 300


class Gates:
    """The gates of a folder, as a test sees them: all of them open."""

    def __init__(self, folder):
        self._folder = folder
        folder.mkdir(exist_ok=True)
        preload = '["tests.faults.gate"]'
        self.environment = {FOLDER: str(folder), "DASK_DISTRIBUTED__WORKER__PRELOAD": preload}

    def shut(self, stage, point):
        """Let who comes to a point of a stage wait there."""
        (self._folder / f"{stage}.{point}.here").unlink(missing_ok=True)
        (self._folder / f"{stage}.{point}").touch()

    def who(self, stage, point):
        """Give the process that waits at a gate; None as long as there is none."""
        with suppress(FileNotFoundError):  # nobody is there
            return int((self._folder / f"{stage}.{point}.here").read_text())

    def open(self, stage="*", point="*"):
        """Let everyone go on who waits at a gate, or at any."""
        for file in self._folder.glob(f"{stage}.{point}"):
            file.unlink(missing_ok=True)  # who comes just now renames its own


def enter(stage):
    """Say, in the process of the run, which stage begins."""
    file = Path(os.environ[FOLDER], "stage")
    file.with_name("next").write_text(stage)
    file.with_name("next").replace(file)
    wait_at("start")


def wait_at(point):
    """Wait at a point of the stage under way, as long as its gate is shut."""
    folder = Path(os.environ[FOLDER])
    with suppress(FileNotFoundError):  # no stage has begun
        gate = folder / f"{(folder / 'stage').read_text()}.{point}"
        if gate.exists():
            mine = gate.with_name(f"{gate.name}.{get_native_id()}")  # another may be read just now
            mine.write_text(str(os.getpid()))
            mine.replace(gate.with_name(f"{gate.name}.here"))
        while gate.exists():
            time.sleep(PAUSE_SECONDS)


def guard_run():
    """Put gates at the stages of a run and at their commits, and let it wait for a scheduler."""
    import dask

    from popdask.store.transaction import Transaction
    from popdask.workflow.progress import ConsoleReporter

    dask.config.set({"distributed.comm.timeouts.connect": PATIENCE_SECONDS})
    said, write, publish = ConsoleReporter.stage, Transaction._write, Transaction.publish

    @contextmanager
    def stage(reporter, name, work):
        with said(reporter, name, work):
            enter(name)
            yield

    def guarded_write(work, session, message, metadata=None):
        if "finished" in (metadata or {}) or "run" in (metadata or {}):
            wait_at("commit")
        return write(work, session, message, metadata)

    def guarded_publish(work, *arguments):
        enter("publish")
        return publish(work, *arguments)

    ConsoleReporter.stage, Transaction._write = stage, guarded_write
    Transaction.publish = guarded_publish


def fork(arguments, environment, log):
    """Be a run, as a process that was forked where all is imported; it writes to a file."""
    os.environ |= environment
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["popdask", *arguments]
    begin()


def begin():
    """Be a run, with gates."""
    from popdask.__main__ import main

    guard_run()
    main()


def guard_tasks(run_task, task, *arguments):
    """Do a task on a worker, and wait where its stage has a gate."""
    done = run_task(task, *arguments)
    wait_at("store" if "store-" in str(task.key) else "task")
    return done


def dask_setup(_):
    """Put gates at the ends of the tasks of a worker."""
    from distributed import worker

    worker._run_task = partial(guard_tasks, worker._run_task)


if __name__ == "__main__":
    begin()
