"""WorldPop: people per cell of 30 or 3 arc-seconds, a file for each country and year.

There are two series. *2000-2020* (Global 1) is one model of all those years; R2024B and R2025A
(Global 2) are releases of another, of 2015 to 2030, the later years being projections. They are not
to be mixed in one cube: between the last frame of one and the first of the other, people would seem
to move who only were modelled anew.

*Unconstrained* rasters spread the people of a district over all its land, *constrained* ones over
built-up cells only. The layout is that of https://data.worldpop.org/GIS/Population, as of 2025;
``POPDASK_WORLDPOP_URL`` names a mirror of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from popdask.datasets.frames import (
    Credit,
    Fetched,
    FrameFolder,
    Years,
    check_raster,
    described,
    link,
    wanted_years,
)
from popdask.datasets.transfer import Download, Downloads, MissingFileError, root_of
from popdask.errors import InputError
from popdask.io.paths import without_secrets

URL = "https://data.worldpop.org/GIS/Population"
_COUNTRY = re.compile(r"[A-Za-z]{3}")
_FIRST = range(2000, 2021)
_SECOND = range(2015, 2031)


@dataclass(frozen=True)
class Product:
    """One of WorldPop's series of rasters."""

    release: str  # 2000-2020, R2024B or R2025A
    kind: str  # unconstrained or constrained
    resolution: str  # 1km (30 arc-seconds) or 100m (3 arc-seconds)
    years: Sequence[int]  # what it has
    places: tuple[str, ...]
    """Paths below the root where a file may be; `iso`, `ISO` and `year` stand in braces."""
    doi: str = ""  # its DOI, where it has one that we know
    un_adjusted: bool = False  # whether national totals are those of the United Nations

    def __str__(self) -> str:
        adjusted = ", UN-adjusted" if self.un_adjusted else ""
        return f"WorldPop {self.release}, {self.resolution}, {self.kind}{adjusted}"

    def paths(self, country: str, year: int) -> list[str]:
        """Paths below the root where the file of a country and year may be."""
        return [
            place.format(iso=country.lower(), ISO=country.upper(), year=year)
            for place in self.places
        ]

    def name(self, country: str) -> str:
        """Name of the file, ``{time:%Y}`` in place of the year."""
        name = self.places[0].rsplit("/", 1)[-1]
        return name.replace("{year}", "{{time:%Y}}").format(iso=country.lower())


def _first(resolution: str, adjusted: bool, folder: str, name: str, doi: str) -> Product:
    place = f"{folder}/{{year}}/{{ISO}}/{{iso}}_ppp_{{year}}{name}.tif"
    return Product("2000-2020", "unconstrained", resolution, _FIRST, (place,), doi, adjusted)


def _built(adjusted: bool) -> Product:
    folder = "Global_2000_2020_Constrained/2020"
    name = f"{{ISO}}/{{iso}}_ppp_{{year}}{'_UNadj' if adjusted else ''}_constrained.tif"
    places = (f"{folder}/maxar_v1/{name}", f"{folder}/BSGM/{name}")
    return Product("2000-2020", "constrained", "100m", (2020,), places, un_adjusted=adjusted)


def _second(release: str, kind: str, resolution: str, doi: str = "") -> Product:
    code = {"constrained": "CN", "unconstrained": "UC"}[kind]
    folder, mark = ("1km_ua", "_UA") if resolution == "1km" else (resolution, "")
    name = f"{{iso}}_pop_{{year}}_{code}_{resolution}_{release}{mark}_v1.tif"
    place = f"Global_2015_2030/{release}/{{year}}/{{ISO}}/v1/{folder}/{kind}/{name}"
    return Product(release, kind, resolution, _SECOND, (place,), doi)


PRODUCTS = (
    _first("1km", False, "Global_2000_2020_1km", "_1km_Aggregated", "10.5258/SOTON/WP00670"),
    _first(
        "1km", True, "Global_2000_2020_1km_UNadj", "_1km_Aggregated_UNadj", "10.5258/SOTON/WP00671"
    ),
    _first("100m", False, "Global_2000_2020", "", "10.5258/SOTON/WP00645"),
    _first("100m", True, "Global_2000_2020", "_UNadj", "10.5258/SOTON/WP00660"),
    _built(False),
    _built(True),
    _second("R2025A", "constrained", "1km", "10.5258/SOTON/WP00840"),
    _second("R2025A", "constrained", "100m", "10.5258/SOTON/WP00839"),
    _second("R2024B", "constrained", "1km"),
    _second("R2024B", "constrained", "100m", "10.5258/SOTON/WP00803"),
    _second("R2024B", "unconstrained", "1km"),
    _second("R2024B", "unconstrained", "100m"),
)


def fetch_worldpop(
    country: str,
    years: Years,
    folder: Path | str,
    *,
    resolution: str = "1km",
    release: str | None = None,
    kind: str | None = None,
    un_adjusted: bool = False,
    url: str | None = None,
    downloads: Downloads | None = None,
) -> Fetched:
    """Fetch WorldPop's rasters of a country.

    Parameters
    ----------
    country : str
        Its code of three letters (ISO 3166-1), such as NOR.
    years : str, int or iterable of int
        A span such as ``"2000:2020"``, or years.
    folder : path
        Where they go, under the names that WorldPop gave them.
    resolution : str
        ``1km`` (30 arc-seconds) or ``100m`` (3 arc-seconds).
    release : str, optional
        ``2000-2020``, ``R2024B`` or ``R2025A``; by default the first for years up to 2020, and
        R2025A for later ones.
    kind : str, optional
        ``constrained`` or ``unconstrained``; by default unconstrained in 2000-2020, and constrained
        in the later releases.
    un_adjusted : bool
        Take the rasters whose national totals are those of the United Nations (2000-2020 only).
    url : str, optional
        Root of a mirror; by default ``POPDASK_WORLDPOP_URL``, or else WorldPop's own.
    downloads : Downloads, optional
        The cache, and how files are brought.

    Returns
    -------
    Fetched
        The frames, their pattern and the credit that they ask for.

    Raises
    ------
    InputError
        If there is no such raster, or the folder has another file of its name.
    FetchError
        If one could not be brought.

    Examples
    --------
    >>> fetch_worldpop("NOR", "2010:2030", "data/norway", release="2000-2020")
    Traceback (most recent call last):
    popdask.errors.InputError: years is '2010:2030', but WorldPop 2000-2020, 1km, unconstrained has
    2000 to 2020; ask for those.
    >>> fetched = fetch_worldpop("NOR", "2000:2020", "data/norway")     # doctest: +SKIP
    >>> cube = popdask.open_frames(fetched.pattern)                     # doctest: +SKIP
    """
    if not _COUNTRY.fullmatch(country):
        raise InputError(
            f"country is {country!r}; expected a code of three letters such as NOR (ISO 3166-1)."
        )
    product, found = choose(years, resolution, release, kind, un_adjusted)
    root = root_of(url, "POPDASK_WORLDPOP_URL", URL)
    downloads = downloads or Downloads()
    frames = FrameFolder(folder)
    pattern, credit = product.name(country), _credit(product)
    missing = frames.missing(pattern, found)
    for year, name in missing.items():
        fresh = _bring(product, country, year, found, root, downloads)
        frames.put(name, partial(link, fresh.path), fresh.source, credit)
    return frames.fetched(pattern, found, credit, len(missing))


def choose(
    years: Years, resolution: str, release: str | None, kind: str | None, un_adjusted: bool
) -> tuple[Product, list[int]]:
    """Choose the series that has what is asked for, and the years of it."""
    asked = {"release": release, "kind": kind, "resolution": resolution}
    for name, value in asked.items():
        known = list(dict.fromkeys(getattr(product, name) for product in PRODUCTS))
        if value is not None and value not in known:
            raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}.")
    fitting = [
        product
        for product in PRODUCTS
        if product.un_adjusted == un_adjusted
        and all(value in (None, getattr(product, name)) for name, value in asked.items())
    ]
    if not fitting:
        wanted = ", ".join(f"{name} {value}" for name, value in asked.items() if value)
        raise InputError(
            f"WorldPop has no rasters of {wanted}{', UN-adjusted' if un_adjusted else ''}; it has "
            f"{'; '.join(str(product).removeprefix('WorldPop ') for product in PRODUCTS)}."
        )
    problems = []
    for product in fitting:
        try:
            return product, wanted_years(years, product.years, str(product))
        except InputError as problem:
            problems.append(problem)
    if len({str(problem) for problem in problems}) == 1:
        raise problems[0]
    spans = "; ".join(
        f"{product} has {described(product.years)}"
        for product in {product.years: product for product in reversed(fitting)}.values()
    )
    raise InputError(
        f"years is {years!r}, and no series of WorldPop has all of them: {spans}; the series are "
        "different models, so fetch one."
    )


def _bring(
    product: Product, country: str, year: int, years: Sequence[int], root: str, downloads: Downloads
) -> Download:
    """Bring one file from where it may be; if it is nowhere, say which of the years are there."""
    for path in product.paths(country, year):
        try:
            return downloads.get(f"{root}/{path}", partial(check_raster, name=path))
        except MissingFileError:
            continue
    there = [
        other
        for other in years
        if any(downloads.has(f"{root}/{path}") for path in product.paths(country, other))
    ]
    has = f"it has {', '.join(map(str, there))}" if there else "nor any other year asked for"
    raise InputError(
        f"{product} has no raster of {country.upper()} in {year} ({without_secrets(root)}): {has}; "
        "correct the country or the years."
    )


def _credit(product: Product) -> Credit:
    doi = f" doi:{product.doi}." if product.doi else ""
    southampton = (
        "WorldPop, School of Geography and Environmental Science, University of Southampton"
    )
    if product.release == "2000-2020":
        citation = (
            f"{southampton}; Department of Geography and Geosciences, University of Louisville; "
            "Département de Géographie, Université de Namur; and CIESIN, Columbia University "
            "(2018). Global High Resolution Population Denominators Project, funded by The Bill "
            f"and Melinda Gates Foundation (OPP1134076).{doi}"
        )
    else:
        citation = (
            "Bondarenko M., Priyatikanto R., Tejedor-Garavito N., Zhang W., McKeen T., "
            "Cunningham A., Woods T., Hilton J., Cihan D., Nosatiuk B., Brinkhoff T., Tatem A., "
            f"Sorichetta A. (2025). Estimates of 2015-2030 total number of people per grid square, "
            f"{product.release} version v1. Global Demographic Data Project, funded by The Bill "
            f"and Melinda Gates Foundation (INV-045237). {southampton}.{doi}"
        )
    return Credit(str(product), citation, "https://hub.worldpop.org")
