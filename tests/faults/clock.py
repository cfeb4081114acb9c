"""A wall clock that jumps, for the processes that are started with it.

libfaketime would do, but with it Python's `time.sleep` fails since 3.11.
"""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest


class Clock:
    """A clock that is ahead of this machine's by as many seconds as it is told."""

    def __init__(self, folder):
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler to build a clock that jumps")
        self._shift, library = folder / "shift", folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
        self.jump(0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(self._shift)}

    def jump(self, seconds):
        """Be so many seconds ahead."""
        with self._shift.open("r+b" if self._shift.exists() else "wb") as file:
            file.write(struct.pack("q", seconds))
