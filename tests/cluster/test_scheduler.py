"""Schedulers and workers that others start: reached, waited for, lost, and of one version."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import pytest
from distributed import Client

import popdask
from popdask import cluster as connecting
from popdask.cluster import (
    CONNECT_TIMEOUT,
    LostSchedulerError,
    LostWorkersError,
    NoWorkersError,
    VersionError,
    connect,
)
from popdask.errors import InputError
from tests.cluster.processes import PATIENCE_SECONDS, cluster, scheduler, workers
from tests.faults.process import wait_until
from tests.pipelines.small import write_job

HOWTO = Path(popdask.__file__).parents[1] / "docs" / "howto" / "tls.md"


@pytest.fixture(scope="module")
def empty():
    with scheduler(workers=0) as found:
        yield found


@pytest.fixture
def nobody(empty):
    """The address of a scheduler whose workers, if it had some, have gone."""
    with Client(empty, set_as_default=False) as client:
        wait_until(lambda: not client.scheduler_info()["workers"])
    return empty


@pytest.fixture
def write(tmp_path):
    """Writes a cluster file with a scheduler's address and a time to wait."""

    def write(address, wait, more=""):
        path = tmp_path / "cluster.toml"
        path.write_text(f'address = "{address}"\nwait = "{wait}"\n{more}')
        return path

    return write


def test_a_scheduler_without_workers_is_waited_for_and_then_told(nobody, write):
    told = []
    with (
        pytest.raises(NoWorkersError, match=r"0 of 1 workers came within 1 s; start one with"),
        connect(write(nobody, "1 s"), log=told.append),
    ):
        pytest.fail("there is no worker")
    assert told[0].startswith("waiting for workers: 0 of 1 after 0 s")


def loops():
    return [thread for thread in threading.enumerate() if thread.name == "IO loop"]


def test_an_address_where_nobody_answers_is_named(monkeypatch):
    monkeypatch.setattr(connecting, "SILENT_SECONDS", 0)
    before, told = loops(), []
    with (
        dask.config.set({CONNECT_TIMEOUT: "1s"}),
        pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        connect("tcp://127.0.0.1:9", log=told.append),
    ):
        pytest.fail("there is no scheduler")
    assert told == ["waiting for the scheduler at tcp://127.0.0.1:9, up to 1 s"]
    assert set(loops()) <= set(before)


def test_a_time_that_dask_cannot_read_is_named():
    with (
        dask.config.set({CONNECT_TIMEOUT: "5min"}),
        pytest.raises(InputError, match=r'connect is "5min"; expected .* "5m"; correct it'),
        connect("tcp://127.0.0.1:9"),
    ):
        pytest.fail("there is no such unit")


WAITING = """
import sys
import dask
from popdask.cluster import CONNECT_TIMEOUT, connect
from popdask.cli.console import stoppable
with stoppable("oslo", "local"), dask.config.set({CONNECT_TIMEOUT: "600s"}):
    with connect(sys.argv[1], log=lambda line: print(line, flush=True)):
        sys.exit("nobody answers")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_a_scheduler_that_says_nothing(number):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-c", WAITING, address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
            try:
                assert waiting.stdout.readline().startswith(b"waiting for the scheduler")
                waiting.send_signal(number)
                assert b"popdask: stopped" in waiting.communicate(timeout=PATIENCE_SECONDS)[1]
            finally:
                waiting.kill()


def test_a_signal_that_does_not_wake_who_waits_ends_the_wait_too():
    async def silent():
        await asyncio.sleep(1)  # the main thread sleeps by now
        # As one does that comes in the moment in which it falls asleep.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        await asyncio.sleep(PATIENCE_SECONDS)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        connecting._in_a_thread(silent())
    assert time.monotonic() - started < PATIENCE_SECONDS / 2


def test_workers_that_leave_for_good_end_the_run(write):
    with (
        cluster(1) as there,
        Client(there.address, set_as_default=False) as watcher,
        pytest.raises(LostWorkersError, match=r"no other came within 2 s; start one with"),
    ):
        watcher.wait_for_workers(1, timeout=600)
        lose_all_workers(there, write(there.address, "2 s"))


def lose_all_workers(there, path):
    with connect(path) as client:
        waiting = client.submit(time.sleep, 3600)
        there.workers[0].kill()
        waiting.result()


def test_workers_that_come_in_time_go_on_with_the_work():
    with cluster(1) as there, connect(there.address) as client:
        there.workers[0].kill()
        waiting = client.submit(sum, [1, 2])
        with workers(there.address, 1):
            assert waiting.result() == 3


def test_a_scheduler_that_ends_is_named(write):
    with (
        cluster(1) as there,
        pytest.raises(LostSchedulerError, match=f"scheduler at {there.address} has ended"),
        connect(there.address) as client,
    ):
        waiting = client.submit(time.sleep, 3600)
        there.scheduler.kill()
        waiting.result()


@pytest.fixture
def other(tmp_path):
    """The environment of processes that find another popdask; None: one without popdask."""

    def environment(version):
        package = tmp_path / "other" / "popdask"
        package.mkdir(parents=True)
        text = "raise ImportError" if version is None else f"__version__ = {version!r}"
        (package / "__init__.py").write_text(text)
        return {"PYTHONPATH": str(package.parent), "PYTHONSAFEPATH": "1"}

    return environment


@pytest.mark.parametrize(("version", "has"), [("0.0.9", "popdask 0.0.9"), (None, "no popdask")])
def test_a_worker_of_another_popdask_ends_the_run(nobody, other, version, has):
    with (
        workers(nobody, 1, environment=other(version)),
        pytest.raises(
            VersionError,
            match=f"worker at .* has {has}, and this run popdask {popdask.__version__}",
        ),
        connect(nobody),
    ):
        pytest.fail("it would compute another answer")


def test_a_scheduler_of_another_popdask_ends_the_run(other):
    with (
        scheduler(workers=0, environment=other("0.0.9")) as address,
        workers(address, 1),
        pytest.raises(VersionError, match=r"scheduler at .* has popdask 0\.0\.9, and this run"),
        connect(address),
    ):
        pytest.fail("it is an old one")


def test_another_popdask_is_exit_code_1_and_one_sentence(nobody, other, frames, tmp_path):
    file = write_job(tmp_path / "small.toml", frames, tmp_path / "small.icechunk")
    with workers(nobody, 1, environment=other("0.0.9")):
        command = [sys.executable, "-m", "popdask", "run", str(file), "--cluster", nobody]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and "· population" not in done.stdout
    assert "popdask 0.0.9, and this run popdask" in done.stderr and done.stderr.count("\n") == 1


def test_a_worker_without_popdask_that_joins_later_gets_no_work(other):
    with cluster(1) as there, connect(there.address) as client:
        client.wait_for_workers(1, timeout=600)  # scheduler_info is as old as the last heartbeat
        (first,) = client.scheduler_info(n_workers=-1)["workers"]
        blocked = client.submit(time.sleep, 3600, pure=False)
        waiting = client.map(lambda number: number, range(20), pure=False)
        with workers(there.address, 1, environment=other(None)) as (late,):
            wait_until(lambda: not late.is_running() or late.status() == "zombie")
        assert not any(client.who_has(waiting).values())
        blocked.cancel(force=True)
        assert list(client.scheduler_info(n_workers=-1)["workers"]) == [first]
        there.workers[0].kill()  # it would wait for its thread, which sleeps


def commands_of_the_howto():
    """The commands that make certificates, as the page shows them."""
    (block,) = re.findall(r"```sh\n(.*?)```", HOWTO.read_text(encoding="utf-8"), re.DOTALL)
    return block


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["sh", "-ec", commands_of_the_howto()], cwd=folder, check=True)
    return folder / "certificates"


def options(folder, role):
    return [
        *("--tls-ca-file", f"{folder}/ca.pem"),
        *("--tls-cert", f"{folder}/{role}.pem"),
        *("--tls-key", f"{folder}/{role}-key.pem"),
    ]


def security(folder):
    return "".join(
        f'security.tls_{name} = "{folder}/{file}"\n'
        for name, file in (
            ("ca_file", "ca.pem"),
            ("client_cert", "client.pem"),
            ("client_key", "client-key.pem"),
        )
    )


def test_certificates_of_the_howto_let_in_who_has_them_and_nobody_else(
    certificates, write, tmp_path
):
    others = tmp_path / "others"
    others.mkdir()
    subprocess.run(["sh", "-ec", commands_of_the_howto()], cwd=others, check=True)
    with scheduler(
        workers=1,
        protocol="tls",
        scheduler_options=options(certificates, "scheduler"),
        worker_options=options(certificates, "worker"),
    ) as address:
        with connect(write(address, "60 s", security(certificates))) as client:
            assert client.submit(sum, [1, 2]).result() == 3
            assert all(key.startswith("tls://") for key in client.scheduler_info()["workers"])
        with pytest.raises(InputError, match="wants certificates"), connect(address):
            pytest.fail("it has no certificates")
        path = write(address, "60 s", security(others / "certificates"))
        with (
            dask.config.set({CONNECT_TIMEOUT: "1s"}),
            pytest.raises(InputError, match="no Dask scheduler answers"),
            connect(path),
        ):
            pytest.fail("its certificates are of another cluster")


def test_keys_of_the_howto_are_for_their_owner_alone(certificates):
    keys = [path for path in certificates.iterdir() if path.stem.endswith("-key")]
    assert len(keys) == 3 and not (certificates / "ca-key.pem").exists()
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)


@pytest.fixture(scope="module")
def address():
    """A scheduler and its worker, which nobody waits for before the last tests."""
    with scheduler(workers=1) as found:
        yield found


def test_a_scheduler_is_reached_and_left_running(address):
    for _ in range(2):
        with connect(address) as client:
            assert client.submit(sum, [1, 2]).result() == 3


def test_what_fails_on_a_worker_is_told_as_it_is(address):
    with pytest.raises(ZeroDivisionError), connect(address) as client:
        client.submit(divmod, 1, 0).result()


def test_another_client_s_work_is_not_ours(address):
    with connect(address), Client(address, set_as_default=False) as other_client:
        assert other_client.submit(sum, [2, 3]).result() == 5
