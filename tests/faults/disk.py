"""A small disk that tests fill and protect: a file system in memory, which only root may mount."""

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


@contextmanager
def small_disk(folder, size):
    """Mount a disk of so many bytes on a folder."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    folder.mkdir(exist_ok=True)
    try:
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a small disk cannot be mounted here: {error.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder):
    """Fill the rest of a disk."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        free = os.statvfs(folder)
        file.write(bytes(free.f_bavail * free.f_bsize))
    try:
        yield
    finally:
        ballast.unlink()
