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
        return place.partition("?")[0] if place.startswith("/vsi") else place
    if "@" in rest and _has_user(rest):
        rest = rest.rpartition("@")[2]
    return f"{before}{mark}{_until(rest, '?#')}"


def without_keys(text: str) -> str:
    """Drop from a text what its URLs say beside places, and the values of secret variables."""
    words = [
        without_secrets(word) if _MARK in word or word.startswith("/vsi") else word
        for word in _words(text)
    ]
    text = "".join(words)
    for name, value in os.environ.items():
        if name.upper().endswith(_ENDINGS) and len(value) >= _SHORTEST:
            text = text.replace(value, f"${name}")
    return text


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
