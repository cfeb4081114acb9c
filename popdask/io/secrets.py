"""What may be said of places: URLs without users, passwords and queries, texts without keys.

A URL is taken apart as programs do, but where it is ambiguous, more is left out: a password that
nobody has escaped may hold ``@``, ``/``, ``?`` or ``#``, so with a colon before it the user ends at
the *last* ``@``.
"""

from __future__ import annotations

import os

_MARK = "://"
_ENDINGS = ("KEY", "KEY_ID", "SECRET", "TOKEN", "PASSWORD", "PASSWD")
_SHORTEST = 8


def without_secrets(place: str) -> str:
    """Drop from a URL its user, password, query and fragment; a path stays as it is."""
    before, mark, rest = place.partition(_MARK)
    if not mark:
        return _without_options(place) if place.startswith("/vsi") else place
    if "@" in rest and _has_user(rest):
        rest = rest.rpartition("@")[2]
    return f"{before}{mark}{_until(rest, '?#')}"


def is_unescaped(place: str) -> bool:
    """Return whether programs would take a part of a password for the host, and speak of it."""
    _, mark, rest = place.partition(_MARK)
    user = rest.rpartition("@")[0]
    if not mark or not _has_user(rest) or not any(letter in user for letter in "@/?#"):
        return False
    host, _, port = _until(rest, "/?#").rpartition("@")[2].rpartition(":")
    return "@" in _until(rest, "/?#") or bool(host and "]" not in port and not port.isdigit())


def without_keys(text: str) -> str:
    """Drop from a text what its URLs say beside places, and the values of secret variables."""
    words = [
        without_secrets(word) if _MARK in word else _without_options(word) for word in _words(text)
    ]
    text = "".join(words)
    for name, value in os.environ.items():
        if name.upper().endswith(_ENDINGS) and len(value) >= _SHORTEST:
            text = text.replace(value, f"${name}")
    return text


def _without_options(word: str) -> str:
    """Drop the options of GDAL's virtual files, which may hold headers, from a word in quotes."""
    before, mark, rest = word.partition("/vsi")
    return f"{before}{mark}{rest.partition('?')[0]}"


def _has_user(rest: str) -> bool:
    """Whether what follows the scheme begins with a user: by an ``@`` or a colon in its host."""
    host = _until(rest, "/?#")
    return "@" in host or ":" in host


def _until(text: str, ends: str) -> str:
    return text[: min((i for i, letter in enumerate(text) if letter in ends), default=len(text))]


def _words(text: str) -> list[str]:
    """The words of a text, and what is between them."""
    words: list[str] = []
    for letter in text:
        if words and letter.isspace() == words[-1][-1].isspace():
            words[-1] += letter
        else:
            words.append(letter)
    return words
