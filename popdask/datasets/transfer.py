"""Files brought over HTTP: in parts, resumed, checked, and kept.

What has come lies in a part file; a note beside it says which version of the file it is part of, by
the validator that the server gave (a strong ETag, or else Last-Modified). After a broken transfer,
in this process or an earlier one, the rest is asked for with ``Range`` and ``If-Range`` (RFC 9110):
a server that has another version by now, or that knows no ranges, answers with the whole file, and
the part begins anew.

Neither WorldPop nor the Joint Research Centre publishes checksums of its rasters. The SHA-256 of
what came first is therefore noted beside the file; a file that no longer agrees with it is brought
again, and refused if it still differs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, TimeoutError

from popdask import __version__
from popdask.errors import InputError
from popdask.io.paths import check_url, open_own, read_own, write_text
from popdask.io.paths import without_secrets as shown

AGENT = {"User-Agent": f"popdask/{__version__}"}
BLOCK = 1 << 18
LONGEST_NAME = 180  # of a file, beside what stands before and behind it in the cache
_BUSY = (408, 425, 429)
_NOT_THERE = (404, 410)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_SHA256 = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):", re.IGNORECASE)
#: Called with the name of a file, the bytes that have come, and the bytes in all if they are known.
Watch = Callable[[str, int, int | None], None]
#: Called with one line.
Log = Callable[[str], None]


def _read_note(path: Path) -> dict[str, Any]:
    """What a note says; nothing without one, after a power cut, or where it is another's."""
    try:
        note = json.loads(read_own(path))
    except (FileNotFoundError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


class Part:
    """Bytes that have come, and what they are part of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beside = path.with_name(f"{path.name}.json")

    @property
    def note(self) -> dict[str, Any]:
        """Validator, size and checksum of the file; without them, nothing is known."""
        return _read_note(self._beside)

    def size(self) -> int:
        """Count the bytes that have come."""
        return self.path.stat().st_size if self.path.exists() else 0

    def whole(self) -> bool:
        """Return whether all have come, as far as is known."""
        return self.path.exists() and self.note.get("size") == self.size()

    def rest(self) -> dict[str, str]:
        """Headers that ask for what has not come, if the file is still the same."""
        validator = self.note.get("validator")
        if not validator or not self.size():
            return {}
        return {"Range": f"bytes={self.size()}-", "If-Range": validator}

    def discard(self) -> None:
        """Forget the bytes, then what they were part of."""
        self.path.unlink(missing_ok=True)
        self._beside.unlink(missing_ok=True)

    def describe(self, note: dict[str, Any]) -> None:
        """Write the note."""
        write_text(self._beside, json.dumps(note))

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open the part for what comes next; what has come is on the disk at the end."""
        with open_own(self.path, "ab") as file:
            try:
                yield file
            finally:
                file.flush()
                os.fsync(file.fileno())

    def hand_over(self, target: Path) -> None:
        """Move the bytes to where they belong."""
        self.path.replace(target)
        self._beside.unlink(missing_ok=True)


def root_of(url: str | None, variable: str, published: str) -> str:
    """Return the root that files are fetched from, without a slash at its end."""
    root = url or os.environ.get(variable) or published
    check_url(root)
    parts = urlsplit(root)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(
            f"{variable if url is None else 'url'} is {shown(root)!r}; expected the root of a "
            "mirror such as https://mirror.example.org/worldpop; correct it."
        )
    return root.rstrip("/")


class FetchError(Exception):
    """A file could not be fetched; the message is one sentence.

    Examples
    --------
    >>> raise FetchError("the server does not answer")
    Traceback (most recent call last):
    popdask.datasets.transfer.FetchError: the server does not answer
    """


class MissingFileError(FetchError):
    """The server has no such file."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for, and how much of it is borne.

    Examples
    --------
    >>> Patience(attempts=2).wait
    1.0
    """

    attempts: int = 6
    """Attempts in a row that bring nothing new, before a transfer is given up."""
    wait: float = 1.0
    """Seconds before the second attempt; doubled for each one after it."""
    longest: float = 60.0
    """Seconds between two attempts, at most."""
    connect: float = 30.0
    """Seconds for a connection to be made."""
    read: float = 120.0
    """Seconds without a byte, after which a connection counts as broken."""
    redirects: int = 5
    """How often a server may send to another place, in one request."""
    most: int = 64 << 30
    """Bytes of a file, at most; those that are known have less than a tenth of it."""


class _BrokenError(Exception):
    """An attempt failed; another one may not."""

    def __init__(self, trouble: str, after: float = 0.0) -> None:
        super().__init__(trouble)
        self.after = after


class ResumingDownloader:
    """A transfer that goes on where it broke."""

    def __init__(
        self, part: Path, patience: Patience, watch: Watch | None = None, log: Log | None = None
    ) -> None:
        self._part = Part(part)
        self._patience = patience
        self._watch = watch
        self._log = log

    def bring(self, url: str) -> Part:
        """Bring all of a file, if it is what its server says it is."""
        failures = 0
        with _session(self._patience) as session:
            while not self._part.whole():
                had = self._part.size()
                try:
                    self._attempt(session, url)
                except (requests.TooManyRedirects, requests.exceptions.InvalidSchema) as trouble:
                    raise _astray(url, self._patience) from trouble
                except (requests.RequestException, HTTPError, _BrokenError) as trouble:
                    failures = 1 if self._part.size() > had else failures + 1
                    self._wait(url, trouble, failures)
        checksum = self._part.note.get("checksum")
        if not _agrees(self._part.path, checksum):
            self._part.discard()
            raise FetchError(
                f"{shown(url)} is not what the server says it is: its checksum is not {checksum}; "
                "what came was thrown away, fetch again."
            )
        return self._part

    def _attempt(self, session: requests.Session, url: str) -> None:
        patience = (self._patience.connect, self._patience.read)
        headers = AGENT | {"Accept-Encoding": "identity"} | self._part.rest()
        with session.get(url, headers=headers, stream=True, timeout=patience) as answer:
            self._begin(answer, url)
            size = self._part.note["size"]
            self._check_room(url, size)
            with self._part.opened() as file:
                # not iter_content: a break drops the bytes of its unfinished block
                while block := answer.raw.read1(BLOCK, decode_content=False):
                    self._check_size(url, file.tell() + len(block))
                    file.write(block)
                    if self._watch:
                        self._watch(url.rsplit("/", 1)[-1], file.tell(), size)
        if size is None:
            self._part.describe(self._part.note | {"size": self._part.size()})
        elif self._part.size() != size:
            came = self._part.size()
            if came > size:
                self._part.discard()
            raise _BrokenError(f"{came:,} of {size:,} bytes came")

    def _check_room(self, url: str, size: int | None) -> None:
        """Refuse a file, before it comes, that is too large or for which there is no room."""
        to_come = (size or 0) - self._part.size()
        free = shutil.disk_usage(self._part.path.parent).free
        if to_come > free:
            raise FetchError(
                f"{shown(url)} has {size:,} bytes, and {free:,} bytes are free in "
                f"{self._part.path.parent}: make room, or set POPDASK_CACHE to another folder."
            )
        self._check_size(url, size or 0)

    def _check_size(self, url: str, size: int) -> None:
        if size > self._patience.most:
            self._part.discard()
            raise FetchError(
                f"{shown(url)} is larger than {self._patience.most:,} bytes, which no file of the "
                "source is: the server sent something else; it is not kept."
            )

    def _begin(self, answer: requests.Response, url: str) -> None:
        """Make the part fit for what an answer brings."""
        if answer.status_code == 206:
            if self._goes_on(answer):
                return
            self._part.discard()
            raise _BrokenError("the server sent another part than it was asked for")
        if answer.status_code == 416:
            self._part.discard()
            raise _BrokenError("the server has a shorter file by now")
        _refuse(answer, url)
        self._part.discard()
        self._part.describe(_note(answer))

    def _goes_on(self, answer: requests.Response) -> bool:
        """Return whether an answer begins where the part ends."""
        span = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
        note = self._part.note
        if not span or int(span[1]) != self._part.size():
            return False
        total = int(span[2])
        self._part.describe(note | {"size": total})
        return note["size"] in (None, total)

    def _wait(self, url: str, trouble: Exception, failures: int) -> None:
        cause = _cause(trouble, url)
        if failures >= self._patience.attempts:
            rest = "nothing of it has come: check the network, and fetch again."
            if self._part.size():
                rest = "what has come is kept, fetch again to go on."
            raise FetchError(
                f"{shown(url)} could not be fetched in {failures} attempts, at last: {cause}; "
                f"{rest}"
            ) from trouble
        pause = min(self._patience.wait * 2 ** (failures - 1), self._patience.longest)
        pause = max(pause, min(getattr(trouble, "after", 0.0), self._patience.longest))
        if self._log:
            self._log(f"{url.rsplit('/', 1)[-1]}: {cause}; trying again in {pause:.0f} s")
        time.sleep(pause)


class _Session(requests.Session):
    """A session that is sent on a few times only, and from https to nothing less."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where an answer sends to."""
        target = super().get_redirect_target(resp)
        scheme = urlsplit(target or "").scheme
        if (
            scheme
            and scheme != "https"
            and (scheme != "http" or urlsplit(resp.url).scheme == "https")
        ):
            raise requests.exceptions.InvalidSchema(f"sent to {scheme}", response=resp)
        return target


def _session(patience: Patience) -> requests.Session:
    session = _Session()
    session.max_redirects = patience.redirects
    return session


def _astray(url: str, patience: Patience) -> FetchError:
    return FetchError(
        f"{shown(url)} sends on more than {patience.redirects} times, or to a place that is less "
        "safe than its own (https to http): check the URL, or give that of another mirror."
    )


def _note(answer: requests.Response) -> dict[str, Any]:
    etag = answer.headers.get("ETag", "")
    weak = etag.startswith("W/")
    length = answer.headers.get("Content-Length")
    return {
        "validator": (etag if etag and not weak else None) or answer.headers.get("Last-Modified"),
        "size": int(length) if length and length.isdigit() else None,
        "checksum": _checksum(answer),
    }


def _checksum(answer: requests.Response) -> str | None:
    """Kind and checksum of the whole file, where a server gives it (RFC 9530, RFC 1864)."""
    found = _SHA256.search(answer.headers.get("Repr-Digest", ""))
    kind, text = ("sha256", found[1]) if found else ("md5", answer.headers.get("Content-MD5", ""))
    try:
        return f"{kind}:{base64.b64decode(text, validate=True).hex()}" if text else None
    except binascii.Error:
        return None


def checksum_of(path: Path, kind: str = "sha256") -> str:
    """Checksum of a file, in hexadecimal digits."""
    digest = partial(hashlib.new, kind, usedforsecurity=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, digest).hexdigest()


def _agrees(path: Path, known: str | None) -> bool:
    """Return whether a file has the checksum that is known of it, if one is."""
    if known is None:
        return True
    kind, _, digits = known.rpartition(":")
    return checksum_of(path, kind or "sha256") == digits


def _name_of(url: str) -> str:
    """Name the file of a URL in the cache: those of two URLs differ, however each ends."""
    digits = hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
    return f"{digits}-{urlsplit(url).path.rsplit('/', 1)[-1][-LONGEST_NAME:]}"


def _refuse(answer: requests.Response, url: str) -> None:
    """Raise what an answer without the file means."""
    status = answer.status_code
    if status == 200:
        return
    if status in _NOT_THERE:
        raise MissingFileError(f"{shown(url)} is not there (HTTP {status}).")
    if status in _BUSY or status >= 500:
        after = answer.headers.get("Retry-After", "")
        raise _BrokenError(f"the server answers {status}", float(after) if after.isdigit() else 0.0)
    raise FetchError(f"{shown(url)} is refused by the server (HTTP {status} {answer.reason}).")


def _cause(trouble: Exception, url: str) -> str:
    """Say in a few words what kept a file from coming."""
    if _unreached(trouble):
        return f"the host {urlsplit(url).hostname} cannot be reached"
    if isinstance(trouble, requests.Timeout | TimeoutError):
        return "the server stays silent"
    if isinstance(trouble, requests.ConnectionError | ProtocolError):
        return "the connection broke"
    return str(trouble)


def _unreached(trouble: Exception) -> bool:
    """Return whether no connection was made: no such name, no route, or nobody who answers."""
    reason = getattr(trouble.args[0], "reason", None) if trouble.args else None
    return isinstance(trouble, requests.ConnectTimeout) or isinstance(reason, NewConnectionError)


@dataclass(frozen=True)
class Download:
    """A file of the internet, on this machine."""

    path: Path  # where it is kept
    url: str  # where it is from, without secrets
    sha256: str  # its checksum, in hexadecimal digits

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
        Called with the name of a file, the bytes that have come, and the bytes in all or None.
    log : callable, optional
        Called with a line on what is waited for.

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
        log: Log | None = None,
    ) -> None:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        named = folder or os.environ.get("POPDASK_CACHE") or caches / "popdask"
        self.folder = Path(named).expanduser()
        self.patience = patience or Patience()
        self._watch = watch
        self._log = log

    def get(self, url: str, check: Callable[[Path], None] = lambda path: None) -> Download:
        """Return a file, from the cache if it is there and sound.

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
        name = _name_of(url)
        with self._alone(name):
            note = _read_note(self._note_path(name))
            path = self._retrieve(url, name, note)
            if "sha256" not in note:
                try:
                    check(path)
                except Exception:
                    path.unlink()
                    raise
                note = {
                    "url": shown(url),
                    "sha256": checksum_of(path),
                    "bytes": path.stat().st_size,
                    "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
                }
                write_text(self._note_path(name), json.dumps(note, indent=1))
        return Download(path, shown(url), note["sha256"])

    def has(self, url: str) -> bool:
        """Return whether the server, not the cache, has a file."""
        patience = self.patience
        seconds = (patience.connect, patience.read)
        try:
            with _session(patience) as session:
                return session.head(url, headers=AGENT, allow_redirects=True, timeout=seconds).ok
        except (requests.TooManyRedirects, requests.exceptions.InvalidSchema) as trouble:
            raise _astray(url, patience) from trouble
        except requests.RequestException as trouble:
            raise FetchError(
                f"{shown(url)} cannot be asked for: {_cause(trouble, url)}."
            ) from trouble

    def forget(self, url: str) -> None:
        """Drop a file from the cache, and its checksum."""
        name = _name_of(url)
        with self._alone(name):
            (self.folder / name).unlink(missing_ok=True)
            self._note_path(name).unlink(missing_ok=True)

    def _retrieve(self, url: str, name: str, note: dict[str, Any]) -> Path:
        path, known = self.folder.resolve() / name, note.get("sha256")
        if path.exists() and _agrees(path, known):
            return path
        part_path = path.with_name(f"{name}.part")
        part = ResumingDownloader(part_path, self.patience, self._watch, self._log).bring(url)
        if not _agrees(part.path, known):
            part.discard()
            raise FetchError(
                f"{shown(url)} is another file than the one fetched on {note['fetched'][:10]} "
                f"(SHA-256 {note['sha256'][:12]}…): it is not kept; if the source has a new "
                f"version, remove {self._note_path(name)} and fetch again."
            )
        part.hand_over(path)
        return path

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Keep others from a file; if another process has it, say so and wait."""
        lock = FileLock(self.folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if self._log:
                self._log(f"{name.split('-', 1)[1]}: waiting for another fetch that brings it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _note_path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
