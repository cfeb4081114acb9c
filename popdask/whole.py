"""Files that are there whole or not at all.

A file is made under a hidden temporary folder beside its place and moved there when it is finished,
so that a reader, or a write that is stopped, never leaves half of one.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Path_ = str | os.PathLike[str]


@contextmanager
def whole(path: Path_, *, new: bool = False) -> Iterator[Path]:
    """Give a place to write to; move what was written there to `path` if all went well.

    Parameters
    ----------
    path : path
        A file, or a folder such as that of a Zarr group. Its folder is made where it is missing. A
        file that is the same already stays as it is, with its time.
    new : bool, optional
        Whether nothing may be there yet.

    Yields
    ------
    Path
        Of the same name, in a temporary folder.

    Raises
    ------
    FileExistsError
        If something is there, before or after the writing, and only `new` is wanted.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder, "note.txt")) as unfinished:
    ...         _ = unfinished.write_text("Oslo")
    ...     Path(folder, "note.txt").read_text()
    'Oslo'
    """
    path = Path(path)
    if new:
        _check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_prefix(path)) as folder:
        unfinished = Path(folder, path.name)
        yield unfinished
        if new:
            _check_free(path)
            unfinished.rename(path)
        elif path.is_dir():
            _exchange(unfinished, path)
        elif not (path.exists() and filecmp.cmp(unfinished, path, shallow=False)):
            unfinished.replace(path)


def write_text(path: Path_, text: str) -> Path:
    r"""Write a text file in UTF-8, whole or not at all.

    Lines end in ``\n`` on every system, so that the same text is the same file.
    """
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def write_bytes(path: Path_, data: bytes) -> Path:
    """Write a file, whole or not at all, and wait until its bytes are on the disk."""
    with whole(path) as unfinished, unfinished.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
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


def _check_free(path: Path) -> None:
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _exchange(unfinished: Path, path: Path) -> None:
    """Move a folder to the place of another, since none can be moved onto one that is not empty."""
    before = unfinished.with_name(f"{path.name}-before")
    path.rename(before)
    try:
        unfinished.rename(path)
    except OSError:
        before.rename(path)
        raise


def _prefix(path: Path) -> str:
    return f".{path.name}-"
