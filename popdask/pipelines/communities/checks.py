"""What the communities job promises, counted again from what is stored: nobody gets lost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from popdask.store import RegionStore
from popdask.tracking.summary import LostPeopleError, check_balance, people_balance

TOLERANCE = 1e-9  # of the people of a raster, as promised


def check(store: RegionStore) -> Iterator[str]:
    """Count everyone again, inside communities and outside; compare with the stored balance.

    Yields
    ------
    str
        One sentence for each thing that is not as promised.
    """
    arrays = store.dataset()
    now = people_balance(arrays["community"], arrays["population"])
    then = store.table("balance")
    try:
        check_balance(now)
    except LostPeopleError as error:
        yield str(error)
    for name in ("inside", "outside", "raster"):
        same = np.isclose(now[name], then[name], rtol=TOLERANCE, atol=0)
        for row in np.flatnonzero(~same):
            yield (
                f"people {name} of {now['time'][row]:%Y-%m-%d} are {now[name][row]:,.1f}, "
                f"{then[name][row]:,.1f} were recorded."
            )
