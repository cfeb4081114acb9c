"""Files of the internet, kept: each is brought once, and compared with its checksum ever after.

Neither WorldPop nor the Joint Research Centre publishes checksums of its rasters. The SHA-256 of
what came first is therefore noted beside the file; a file that no longer agrees with it is brought
again, and refused if it still differs.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pooch  # type: ignore[import-untyped]
from filelock import FileLock, Timeout
from pooch.utils import unique_file_name  # type: ignore[import-untyped]

from popdask.fetch.roots import shown
from popdask.fetch.transfer import (
    FetchError,
    Patience,
    ResumingDownloader,
    Tell,
    Watch,
    is_there,
)


@dataclass(frozen=True)
class Download:
    """A file of the internet, on this machine."""

    path: Path
    """Where it is kept."""
    url: str
    """Where it is from, without secrets."""
    sha256: str
    """Its checksum, in hexadecimal digits."""

    @property
    def source(self) -> dict[str, str]:
        """Checksum by URL, for the record."""
        return {self.url: self.sha256}


class Downloads:
    """The cache of files that were brought, and how others are.

    Parameters
    ----------
    folder : path, optional
        Where they are kept; by default ``POPDASK_CACHE``, or else the user's cache folder.
    patience : Patience
        How long servers are waited for.
    watch : callable, optional
        Is told the name of a file, the bytes that have come, and the bytes in all or None.
    tell : callable, optional
        Is told, in a line, what is waited for.

    Examples
    --------
    >>> downloads = Downloads("/tmp/popdask", patience=Patience(attempts=2))
    >>> downloads.folder
    PosixPath('/tmp/popdask')
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        patience: Patience | None = None,
        watch: Watch | None = None,
        tell: Tell | None = None,
    ) -> None:
        named = folder or os.environ.get("POPDASK_CACHE") or pooch.os_cache("popdask")
        self.folder = Path(named).expanduser()
        self.patience = patience or Patience()
        self._watch = watch
        self._tell = tell

    def get(self, url: str, check: Callable[[Path], None] = lambda path: None) -> Download:
        """Give a file, from the cache if it is there and sound.

        Two that ask for one file at once, in one process or in two, bring it once.

        Parameters
        ----------
        url
            Where it is.
        check
            Raises an error if what came is not what was expected; then it is not kept.

        Raises
        ------
        FetchError
            If it cannot be brought, or is another file than the one that was brought before.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = unique_file_name(url)
        with self._alone(name):
            note = self._note(name)
            path = self._retrieve(url, name, note)
            if "sha256" not in note:
                try:
                    check(path)
                except Exception:
                    path.unlink()
                    raise
                note = {
                    "url": shown(url),
                    "sha256": pooch.file_hash(str(path)),
                    "bytes": path.stat().st_size,
                    "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
                }
                self._note_path(name).write_text(json.dumps(note, indent=1), encoding="utf-8")
        return Download(path, shown(url), note["sha256"])

    def has(self, url: str) -> bool:
        """Tell whether the server, not the cache, has a file."""
        return is_there(url, self.patience)

    def forget(self, url: str) -> None:
        """Drop a file from the cache, and its checksum."""
        name = unique_file_name(url)
        with self._alone(name):
            (self.folder / name).unlink(missing_ok=True)
            self._note_path(name).unlink(missing_ok=True)

    def _retrieve(self, url: str, name: str, note: dict[str, Any]) -> Path:
        part = self.folder / f"{name}.part"
        downloader = ResumingDownloader(part, self.patience, self._watch, self._tell)
        known = f"sha256:{note['sha256']}" if note else None
        try:
            with _quiet_pooch():
                path = pooch.retrieve(
                    url, known, fname=name, path=self.folder, downloader=downloader
                )
        except ValueError as error:  # what pooch says of a wrong checksum
            raise FetchError(
                f"{shown(url)} is another file than the one fetched on {note['fetched'][:10]} "
                f"(SHA-256 {note['sha256'][:12]}…): it is not kept; if the source has a new "
                f"version, remove {self._note_path(name)} and fetch again."
            ) from error
        return Path(path)

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Keep others from a file; if another process has it, say so and wait."""
        lock = FileLock(self.folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if self._tell:
                self._tell(f"{name.split('-', 1)[1]}: waiting for another fetch that brings it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _note_path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _note(self, name: str) -> dict[str, Any]:
        try:
            return json.loads(self._note_path(name).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):  # the latter after a power cut
            return {}


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Keep pooch from writing to the standard error: a library does not print."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
