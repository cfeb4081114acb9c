"""Files that are there whole or not at all.

A file is made under a hidden temporary folder beside its place and moved there when it is finished,
so that a reader, or a write that is stopped, never leaves half of one.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Path_ = str | os.PathLike[str]


@contextmanager
def whole(path: Path_) -> Iterator[Path]:
    """Give a place to write to; move what was written there to `path` if all went well.

    Parameters
    ----------
    path : path
        A file, or a folder such as that of a Zarr group. Its folder is made where it is missing. A
        file that is the same already stays as it is, with its time.

    Yields
    ------
    Path
        Of the same name, in a temporary folder.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder, "note.txt")) as unfinished:
    ...         _ = unfinished.write_text("Oslo")
    ...     Path(folder, "note.txt").read_text()
    'Oslo'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_prefix(path)) as folder:
        unfinished = Path(folder, path.name)
        yield unfinished
        if path.is_dir():  # no folder can be moved onto another
            path.rename(Path(folder, f"{path.name}-before"))
        if not (path.is_file() and filecmp.cmp(unfinished, path, shallow=False)):
            unfinished.replace(path)


def write_text(path: Path_, text: str) -> Path:
    """Write a text file, whole or not at all."""
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return Path(path)


def sweep(path: Path_) -> None:
    """Take away the temporary folders of writes to a path that were killed.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, ".people.tif-x4_k2lb0").mkdir()
    ...     sweep(Path(folder, "people.tif"))
    ...     list(Path(folder).iterdir())
    []
    """
    path = Path(path)
    if path.parent.is_dir():
        for left in path.parent.iterdir():
            if left.name.startswith(_prefix(path)) and left.is_dir():
                shutil.rmtree(left)


def _prefix(path: Path) -> str:
    return f".{path.name}-"
