"""Installations that cannot be written: numba finds a folder, and nothing else is written to."""

import os
import re
import shutil
import subprocess
import sys

import numba
import pytest

from popdask._numba_cache import prepare_cache
from tests.deploy.test_files import DEPLOY, ROOT
from tests.pipelines.small import small_world, write_job

#: What ``ProtectSystem=strict``, ``ProtectHome``, ``PrivateTmp``, ``ReadWritePaths`` and
#: ``CacheDirectory`` do.
STRICT = """
set -e
mount --make-rprivate /
mount --bind "$OUT" "$OUT"
mount --bind "$TMPDIR" "$TMPDIR"
mount --bind "$CACHE" "$CACHE"
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
mount --bind "$HOME" "$HOME"
mount -o remount,bind,ro "$HOME"
mount -o remount,bind,ro /
"""


@pytest.fixture
def strict(tmp_path):
    """Run popdask as the shipped unit does, by mounts of its own."""
    unit = (DEPLOY / "cron" / "popdask@.service").read_text()
    for line in ("ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes"):
        assert f"\n{line}\n" in unit
    assert re.search(r"^ReadWritePaths=\S+/out$", unit, re.MULTILINE)
    (cache,) = re.findall(r"^CacheDirectory=(\S+)$", unit, re.MULTILINE)
    settings = re.findall(r"^Environment=(\w+)=(\S+)$", unit, re.MULTILINE)
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("mounts of one's own are not allowed here")
    places = {name: tmp_path / name for name in ("out", "home", "tmp")}
    places["cache"] = tmp_path / "var" / cache
    for place in places.values():
        place.mkdir(parents=True)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"},
        **{name: value.replace("%C", str(tmp_path / "var")) for name, value in settings},
        "OUT": str(places["out"]),
        "HOME": str(places["home"]),
        "TMPDIR": str(places["tmp"]),
        "CACHE": str(places["cache"]),
        "ROOT": str(ROOT),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def call(*arguments):
        command = [sys.executable, "-m", "popdask", *map(str, arguments)]
        return subprocess.run(
            ["unshare", "-m", "sh", "-c", f'{STRICT} exec "$@"', "sh", *command],
            env=environment,
            cwd=places["out"],
            capture_output=True,
            text=True,
            timeout=600,
        )

    return call, places


def test_the_shipped_unit_runs_a_job(strict, tmp_path):
    call, places = strict
    frames = tmp_path / "frames"
    small_world().write(frames)
    tables = {"input": {"end": "2001"}, "encoder": {"epochs": 1}}
    file = write_job(tmp_path / "small.toml", frames, places["out"] / "small.icechunk", **tables)
    cluster = tmp_path / "cluster.toml"
    cluster.write_text("workers = 1\n")
    done = call("run", file, "--cluster", cluster)
    assert done.returncode == 0, done.stderr
    assert list(places["cache"].rglob("*.nbc")), "numba has kept its code"
    assert not list(places["tmp"].rglob("*.nbc")), "where it stays when the service ends"
    assert not list(places["home"].iterdir())


@pytest.fixture(autouse=True)
def told(monkeypatch):
    """What numba is told ends with a test: it would compile all anew for those that follow."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", numba.config.CACHE_DIR)


def test_a_folder_is_named_only_where_numba_has_none(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    environment = {}
    assert prepare_cache(package, environment) is None and not environment
    monkeypatch.setattr(
        os, "access", lambda place, mode: str(place).startswith(str(tmp_path / "t"))
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    named = {"NUMBA_CACHE_DIR": "/mine", "XDG_CACHE_HOME": "/nowhere"}
    assert prepare_cache(package, named) is None and named["NUMBA_CACHE_DIR"] == "/mine"
    environment = {"XDG_CACHE_HOME": "/nowhere"}
    folder = prepare_cache(package, environment)
    assert environment["NUMBA_CACHE_DIR"] == str(folder) and folder.parent == tmp_path / "t"
    assert folder.stat().st_mode & 0o777 == 0o700 and str(folder) == numba.config.CACHE_DIR
    assert prepare_cache(package, {"XDG_CACHE_HOME": "/nowhere"}) == folder, "it is used again"


@pytest.mark.parametrize("planted", ["link", "open", "file"])
def test_a_folder_that_others_have_planted_is_not_used(tmp_path, monkeypatch, planted):
    package, temporary = tmp_path / "package", tmp_path / "t"
    package.mkdir()
    temporary.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(os, "access", lambda place, mode: str(place).startswith(str(temporary)))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    there = temporary / f"popdask-numba-{os.getuid()}"
    if planted == "link":
        there.symlink_to(package, target_is_directory=True)
    elif planted == "open":
        there.mkdir()
        there.chmod(0o777)
    else:
        there.touch()
    folder = prepare_cache(package, {"XDG_CACHE_HOME": "/nowhere"})
    assert folder != there and folder.parent == temporary and not folder.is_symlink()
