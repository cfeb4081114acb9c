"""Rasters that hold people per area, by the names under which they are published.

WorldPop writes ``pd`` for density where it writes ``ppp`` for people per pixel, HYDE ``popd`` for
density and ``popc`` for counts, GPW and GRUMP up to version 3 ``ds`` and ``p``. Such letters in
other names decide nothing by themselves; with values that are no whole people, they do.
"""

from __future__ import annotations

import re

import numpy as np

from popdask.errors import InputError

_PRODUCTS = re.compile(
    r"^(?:[a-z]{3}|global|world)_pd_\d{4}(?!\d)"  # WorldPop
    r"|^popd_?\d+ ?(?:ad|ce|bc|bce)?$"  # HYDE
    r"|^[a-z]{2,3}u?ds\d{2}a?g"  # GPW, GRUMP
    r"|(?:^|[^a-z])(?:pop|population)?_?dens(?:$|[^a-z])"
)
_ABBREVIATIONS = re.compile(r"(?:^|[^a-z])(?:pd|ds|popd|popden|ppkm2?)(?:$|[^a-z])")


def is_density_name(name: str) -> bool:
    """Return whether a name is that of a published density."""
    return _PRODUCTS.search(name.lower()) is not None


def check_whole_people(values: np.ndarray, source: str, name: str) -> None:
    """Refuse values that are no whole people where the name has an abbreviation of density."""
    part = _ABBREVIATIONS.search(name.lower())
    if part is None or values.dtype.kind != "f":
        return
    known = np.ma.filled(values, np.nan)
    fractions = known[np.isfinite(known) & (known > 0) & (known != np.rint(known))]
    if fractions.size:
        raise InputError(
            f"{source} holds {fractions[0]:g}, no whole people, and "
            f"{part[0].strip('_-. ')!r} in its name may mean a density; expected people per cell; "
            "multiply it by the cell areas (popdask.io.pixel_area_km2 gives them), or, where it "
            "holds counts, set its tag units to 'people per cell'"
        )
