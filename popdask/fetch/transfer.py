"""Bring one file over HTTP, in as many attempts as it takes, without bringing a byte twice.

What has come lies in a part file; a note beside it says which version of the file it is part of, by
the validator that the server gave (a strong ETag, or else Last-Modified). After a broken transfer,
in this process or an earlier one, the rest is asked for with ``Range`` and ``If-Range`` (RFC 9110):
a server that has another version by now, or that knows no ranges, answers with the whole file, and
the part begins anew.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import requests
from pooch.hashes import hash_matches  # type: ignore[import-untyped]
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, TimeoutError

from popdask import __version__
from popdask.fetch.parts import Part
from popdask.fetch.roots import shown

AGENT = {"User-Agent": f"popdask/{__version__}"}
BLOCK = 1 << 18
_BUSY = (408, 425, 429)
_NOT_THERE = (404, 410)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_SHA256 = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):", re.IGNORECASE)

#: Is told the name of a file, the bytes that have come, and the bytes in all if they are known.
Watch = Callable[[str, int, int | None], None]
#: Is told one line.
Tell = Callable[[str], None]


class FetchError(Exception):
    """A file could not be fetched; the message is one sentence."""


class MissingFileError(FetchError):
    """The server has no such file."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for."""

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


class _BrokenError(Exception):
    """An attempt failed; another one may not."""

    def __init__(self, trouble: str, after: float = 0.0) -> None:
        super().__init__(trouble)
        self.after = after


class ResumingDownloader:
    """A downloader for `pooch.retrieve` that goes on where a broken transfer stopped.

    Parameters
    ----------
    part
        Where the bytes lie until all have come; its note is beside it, ``.json`` added.
    patience
        How long the server is waited for.
    watch, tell
        Are told how far the transfer is, and that an attempt failed.
    """

    def __init__(
        self,
        part: Path,
        patience: Patience,
        watch: Watch | None = None,
        tell: Tell | None = None,
    ) -> None:
        self._part = Part(part)
        self._patience = patience
        self._watch = watch
        self._tell = tell

    def __call__(self, url: str, output_file: str | IO[Any], fetcher: object) -> None:
        """Bring `url` to `output_file`, as pooch asks for it.

        Raises
        ------
        FetchError
            If the server has no such file, refuses it or stays away, or if the file is not the one
            whose checksum the server tells.
        """
        with requests.Session() as session:
            self._bring(session, url)
        told = self._part.note.get("checksum")
        if not hash_matches(str(self._part.path), told):
            self._part.discard()
            raise FetchError(
                f"{shown(url)} is not what the server says it is: its checksum is not {told}; "
                "what came was thrown away, fetch again."
            )
        self._part.hand_over(str(output_file))

    def _bring(self, session: requests.Session, url: str) -> None:
        failures = 0
        while not self._part.whole():
            had = self._part.size()
            try:
                self._attempt(session, url)
            except (requests.RequestException, HTTPError, _BrokenError) as trouble:
                failures = 1 if self._part.size() > had else failures + 1
                self._wait(url, trouble, failures)

    def _attempt(self, session: requests.Session, url: str) -> None:
        patience = (self._patience.connect, self._patience.read)
        headers = AGENT | {"Accept-Encoding": "identity"} | self._part.rest()
        with session.get(url, headers=headers, stream=True, timeout=patience) as answer:
            self._begin(answer, url)
            size = self._part.note["size"]
            with self._part.opened() as file:
                # not iter_content: a break drops the bytes of its unfinished block
                while block := answer.raw.read1(BLOCK, decode_content=False):
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
        """Tell whether an answer begins where the part ends."""
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
        if self._tell:
            self._tell(f"{url.rsplit('/', 1)[-1]}: {cause}; trying again in {pause:.0f} s")
        time.sleep(pause)


def is_there(url: str, patience: Patience) -> bool:
    """Tell whether a server has a file.

    Raises
    ------
    FetchError
        If it does not answer.
    """
    seconds = (patience.connect, patience.read)
    try:
        return requests.head(url, headers=AGENT, allow_redirects=True, timeout=seconds).ok
    except requests.RequestException as trouble:
        raise FetchError(f"{shown(url)} cannot be asked for: {_cause(trouble, url)}.") from trouble


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
    """Checksum of the whole file in pooch's form, where a server tells it (RFC 9530, RFC 1864)."""
    found = _SHA256.search(answer.headers.get("Repr-Digest", ""))
    kind, text = ("sha256", found[1]) if found else ("md5", answer.headers.get("Content-MD5", ""))
    try:
        return f"{kind}:{base64.b64decode(text, validate=True).hex()}" if text else None
    except binascii.Error:
        return None


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
    """Tell whether no connection was made: no such name, no route, or nobody who answers."""
    reason = getattr(trouble.args[0], "reason", None) if trouble.args else None
    return isinstance(trouble, requests.ConnectTimeout) or isinstance(reason, NewConnectionError)
