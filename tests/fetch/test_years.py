import pytest

from popdask.datasets.frames import wanted_years
from popdask.errors import InputError

EVERY_FIVE = range(1975, 2031, 5)


@pytest.mark.parametrize(
    ("years", "found"),
    [
        ("1990:2000", [1990, 1995, 2000]),
        ("1991:2004", [1995, 2000]),
        ("2010,1990", [1990, 2010]),
        ([2010, 1990, 2010], [1990, 2010]),
        (2020, [2020]),
        (range(2000, 2011, 10), [2000, 2010]),
    ],
)
def test_spans_and_lists_of_years(years, found):
    assert wanted_years(years, EVERY_FIVE, "it") == found


@pytest.mark.parametrize(
    "years", ["1970:2020", "1990:2050", "1991:1994", "2020:1990", "1991", [1990, 1991], [], 1974]
)
def test_years_that_there_are_not(years):
    with pytest.raises(InputError, match=r"but it has 1975 to 2030, every 5 years; ask for those"):
        wanted_years(years, EVERY_FIVE, "it")


@pytest.mark.parametrize("years", ["soon", "1990-2000", "1990:", "", "1990;2000"])
def test_what_is_not_years(years):
    with pytest.raises(InputError, match=r"expected a span such as 2000:2020, or years such as"):
        wanted_years(years, EVERY_FIVE, "it")
