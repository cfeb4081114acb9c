"""Kernels that numba compiles when they are called, and where it keeps what it has compiled.

In installations of root's, containers, and services with ``ProtectSystem=strict`` neither the
package nor the home can be written. Numba then ends in "no locator available"; it is given a folder
of the user's own under the temporary one. What lies in it is run, so it has to be the user's alone.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, MutableMapping
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

_VARIABLE = "NUMBA_CACHE_DIR"


def compiled(function: Function) -> Function:
    """Let numba, which takes a while to load, compile a kernel when it is called first."""

    @cache
    def kernel() -> Any:
        import numba

        return numba.njit(cache=True, nogil=True)(function)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        return kernel()(*arguments)

    return call  # type: ignore[return-value]


def prepare_cache(
    package: Path | None = None, environment: MutableMapping[str, str] = os.environ
) -> Path | None:
    """Name a folder for numba where it would find none, also to the processes begun from here."""
    package = package or Path(__file__).parent
    folders = [package, *(path.parent for path in package.rglob("__init__.py"))]
    caches = {folder / "__pycache__" for folder in folders}
    if environment.get(_VARIABLE) or _can_be_written(caches):
        return None
    if _can_be_written([_home_cache(environment)]):
        return None
    try:
        folder = _own_folder()
    except OSError:  # nothing can be written: numba says so where it compiles
        return None
    environment[_VARIABLE] = str(folder)
    if (config := sys.modules.get("numba.core.config")) is not None:
        config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    return folder


def _home_cache(environment: MutableMapping[str, str]) -> Path:
    home = environment.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(home) / "numba"


def _can_be_written(folders: Iterable[Path]) -> bool:
    """Whether one could write to all of some folders, once they are made."""
    return all(os.access(_nearest(folder), os.W_OK | os.X_OK) for folder in folders)


def _nearest(folder: Path) -> Path:
    """A folder, or the nearest above it that is there; one that cannot be looked into is."""
    for place in (folder, *folder.parents):
        try:
            if place.exists():
                return place
        except PermissionError:
            return place
    return Path("/")


def _own_folder() -> Path:
    """A folder under the temporary one that is the user's alone; if another's is there, a new."""
    folder = Path(tempfile.gettempdir(), f"popdask-numba-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        status = folder.lstat()
        own = status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode)
        if not own or status.st_mode & 0o077 or not os.access(folder, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="popdask-numba-"))
    return folder
