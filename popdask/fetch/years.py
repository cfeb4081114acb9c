"""The years that are wanted, of those that a source has."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from popdask.errors import InputError

Years = str | int | Iterable[int]


def wanted_years(years: Years, available: Sequence[int], source: str) -> list[int]:
    """Tell which years are wanted.

    Parameters
    ----------
    years : str, int or iterable of int
        A span such as ``"2000:2020"`` means all years of the source from the first to the last,
        both included; other text is years between commas.
    available : sequence of int
        The years that the source has, in order.
    source : str
        What it is called in an error.

    Returns
    -------
    list of int
        In order, none twice.

    Raises
    ------
    InputError
        If the text is not years, or the source does not have them.

    Examples
    --------
    >>> wanted_years("1992:2004", range(1975, 2031, 5), "GHS-POP")
    [1995, 2000]
    >>> wanted_years([2010, 2000], range(1975, 2031, 5), "GHS-POP")
    [2000, 2010]
    """
    if isinstance(years, str) and ":" in years:
        first, last = _numbers(years.split(":", 1), years)
        found = [year for year in available if first <= year <= last]
        absent = [year for year in (first, last) if not available[0] <= year <= available[-1]]
        if not absent and not found:
            absent = [first, last]
    else:
        numbers = _numbers(years.split(","), years) if isinstance(years, str) else years
        found = sorted({numbers} if isinstance(numbers, int) else {int(year) for year in numbers})
        absent = [year for year in found if year not in available]
    if absent or not found:
        raise InputError(
            f"years is {_shown(years)}, but {source} has {described(available)}; ask for those."
        )
    return found


def described(years: Sequence[int]) -> str:
    """Say which years there are.

    Examples
    --------
    >>> described(range(2000, 2021)), described(range(1975, 2031, 5)), described([2020])
    ('2000 to 2020', '1975 to 2030, every 5 years', '2020')
    """
    first, last = years[0], years[-1]
    steps = {later - year for year, later in itertools.pairwise(years)}
    if not steps:
        return f"{first}"
    if len(steps) > 1:
        return ", ".join(map(str, years))
    (step,) = steps
    return f"{first} to {last}" + (f", every {step} years" if step > 1 else "")


def _numbers(texts: Sequence[str], years: object) -> list[int]:
    try:
        return [int(text) for text in texts]
    except ValueError:
        raise InputError(
            f"years is {years!r}; expected a span such as 2000:2020, or years such as 2000,2010; "
            "correct it."
        ) from None


def _shown(years: object) -> str:
    return repr(years) if isinstance(years, str) else str(years)
