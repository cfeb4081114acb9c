"""How sizes, times and numbers are told."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan


def size_of(size: float) -> str:
    """Tell a size in bytes in the unit that suits it.

    Examples
    --------
    >>> size_of(51_200), size_of(2.5e9)
    ('51.2 kB', '2.5 GB')
    """
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_:
            return f"{size / bytes_:,.1f} {unit}"
    return f"{size / 1e3:,.1f} kB"


def duration(seconds: float) -> str:
    """Tell how long something takes, roughly.

    Examples
    --------
    >>> duration(4.21), duration(100), duration(600), duration(9000)
    ('4.2 s', '100 s', '10.0 min', '2.5 h')
    """
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def age(seconds: float) -> str:
    """Tell how long something is past, in the largest unit that fits.

    Examples
    --------
    >>> age(59), age(7000), age(100_000)
    ('59 s', '2 h', '1 d')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def count(number: int, what: str) -> str:
    """Tell how many of something there are.

    Examples
    --------
    >>> count(1, "chunk"), count(1200, "task")
    ('1 chunk', '1,200 tasks')
    """
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


def written(number: float, form: str) -> str:
    """Write a number in some form, or a dash where there is none.

    Examples
    --------
    >>> written(0.5, "+.1%"), written(float("nan"), ".3f")
    ('+50.0%', '–')
    """
    return "–" if isnan(number) else format(number, form)


def span(times: Sequence[str]) -> str:
    """Tell how many frames there are, and from when to when.

    Examples
    --------
    >>> span(["2000-01-01T00:00:00", "2001-01-01T00:00:00"])
    '2 frames, from 2000-01-01 to 2001-01-01'
    """
    return f"{count(len(times), 'frame')}, from {times[0][:10]} to {times[-1][:10]}"
