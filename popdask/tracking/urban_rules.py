"""The rules of the Degree of Urbanisation, and which labellings and surroundings they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from popdask.errors import InputError


@dataclass(frozen=True)
class UrbanisationRules:
    """The rules of the Degree of Urbanisation; the defaults are the official ones.

    Densities are people per km² of land, people are those of a cluster, contiguity is 4 (cells
    touch at edges) or 8 (at corners, too).

    Examples
    --------
    >>> UrbanisationRules(centre_built=None).centre_people
    50000
    """

    centre_density: float = 1500
    """Urban centres (30; level 1: 3): density of their cells."""
    centre_people: float = 50_000
    """People of an urban centre."""
    centre_contiguity: int = 4
    centre_built: float | str | None = 0.2
    """Built-up share of the land from which a cell counts as dense; "optimal": mean built-up share
    of the dense clusters of the frame; None: no such rule."""
    centre_gap: int | None = 15
    """Holes of fewer cells are filled; None: no filling."""
    centre_edge: str | None = "R2023A"
    """Majority rule for the edges: that of GHSL's release "R2023A", "R2022A", or None."""
    centre_window: int | None = None
    """Window of 3 or 5 cells over which people are smoothed first; None: no smoothing."""
    dense_density: float = 1500
    """Dense urban clusters (23)."""
    dense_people: float = 5000
    dense_contiguity: int = 4
    dense_built: float | str | None = 0.2
    """As `centre_built`."""
    semidense_density: float = 900
    """Semi-dense urban clusters (22)."""
    semidense_people: float = 2500
    semidense_contiguity: int = 4
    semidense_buffer: int = 2
    """Cells by which they must be apart from centres and dense clusters."""
    suburban_density: float = 300
    """Suburban or peri-urban cells (21)."""
    suburban_people: float = 5000
    suburban_contiguity: int = 8
    rural_density: float = 300
    """Rural clusters (13)."""
    rural_people: float = 500
    rural_contiguity: int = 8
    low_density: float = 50
    """Density of low density rural cells (12)."""
    cluster_density: float = 300
    """Urban clusters of level 1 (2)."""
    cluster_people: float = 5000
    cluster_contiguity: int = 8
    cluster_window: int | None = None
    """As `centre_window`."""
    water_land: float = 0.5
    """Water (10; level 1: 0): share of land below which a cell may be water."""
    water_people: float = 0
    """Most people of a water cell."""
    water_built: float = 0
    """Largest built-up share of a water cell."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            accepts, expected = _ACCEPTED[entry.name.split("_")[1]]
            value = getattr(self, entry.name)
            if isinstance(value, bool) or not accepts(value):
                raise InputError(
                    f"the rule {entry.name} is {value!r}; expected {expected}; the default is "
                    f"{entry.default!r}"
                )


def _number(least: float, most: float = np.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (int, float)) and least <= value <= most


def _cells(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and value >= least


_COUNT = (_number(0), "a number of 0 or more")
_SHARE = (_number(0, 1), "a share of the cell, from 0 to 1")
_OPTIONAL_SHARE = (
    lambda value: value is None or value == "optimal" or (_number(0)(value)),
    'a share of the land such as 0.2, "optimal" or None',
)
#: By the second word of a rule's name: what it may be, as a test and in words.
_ACCEPTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "density": _COUNT,
    "people": _COUNT,
    "contiguity": (lambda value: value in (4, 8), "4 (edges) or 8 (edges and corners)"),
    "built": _OPTIONAL_SHARE,
    "gap": (lambda value: value is None or _cells(0)(value), "a number of cells or None"),
    "edge": (lambda value: value in ("R2023A", "R2022A", None), '"R2023A", "R2022A" or None'),
    "window": (lambda value: value in (None, 3, 5), "3, 5 or None"),
    "buffer": (_cells(0), "a number of cells, 0 or more"),
    "land": _SHARE,
}

#: The codes of level 2.
CODES = (10, 11, 12, 13, 21, 22, 23, 30)


def check_codes(codes: NDArray) -> None:
    """Refuse codes that are not those of level 2."""
    strange = codes[~np.isin(codes, CODES)]
    if strange.size:
        raise InputError(
            f"codes hold {strange[0]}; expected the Degree of Urbanisation at level 2, which are "
            f"{list(CODES)}; give degree_of_urbanisation(population, level=2)"
        )


class Kind(NamedTuple):
    """How the cells of a labelling are chosen and joined."""

    density: float
    built: float | str | None
    contiguity: int
    window: int | None


@dataclass(frozen=True)
class Plan:
    """What is done to every frame."""

    rules: UrbanisationRules
    level: int
    kinds: tuple[Kind, ...]
    """The labellings, each once."""
    uses: dict[str, tuple[int, float]]
    """By name of a cluster: its labelling, and the people it needs."""
    codes: dict[str, int]
    reach: int
    steps: int
    halo: int
    """Cells around a block that are told to it."""
    pad: int
    """Cells around a block that smoothing needs."""

    @property
    def all_eight(self) -> bool:
        """Whether all neighbours count at the edge of a centre, water or not."""
        return self.rules.centre_edge == "R2022A"


_LEVEL_2 = {"rural": 13, "suburban": 21, "semidense": 22, "dense": 23, "centre": 30}
_LEVEL_1 = {"cluster": 2, "centre": 3}


def make_plan(
    rules: UrbanisationRules, level: int, has_built: bool, reach: int, steps: int
) -> Plan:
    """Lay down which labellings the rules need, and how far they look."""
    codes = _LEVEL_2 if level == 2 else _LEVEL_1
    kinds: list[Kind] = []
    uses = {}
    for name in codes:
        density, people, contiguity = (
            getattr(rules, f"{name}_{part}") for part in ("density", "people", "contiguity")
        )
        built = getattr(rules, f"{name}_built", None)
        if built == "optimal" and not has_built:
            raise InputError(
                f'the rule {name}_built is "optimal", which needs the built-up area; give built, '
                "or the share as a number, or None"
            )
        window = getattr(rules, f"{name}_window", None)
        kind = Kind(float(density), built if has_built else None, int(contiguity), window)
        if kind not in kinds:
            kinds.append(kind)
        uses[name] = kinds.index(kind), float(people)
    gap = max((rules.centre_gap or 0) - 1, 0)
    buffer = rules.semidense_buffer if level == 2 else 0
    halo = max(reach if rules.centre_edge else 0, gap + buffer)
    pad = max((kind.window or 1) // 2 for kind in kinds)
    return Plan(rules, level, tuple(kinds), uses, codes, reach, steps, int(halo), pad)


def optimal_rule(rules: UrbanisationRules, level: int) -> tuple[Kind, float] | None:
    """The clusters over which built-up land is averaged, and their people."""
    wanted = [rules.centre_built] + [rules.dense_built] * (level == 2)
    if "optimal" not in wanted:
        return None
    if level == 2:
        density, contiguity = rules.dense_density, rules.dense_contiguity
        people = rules.dense_people
    else:
        density, contiguity = rules.centre_density, rules.centre_contiguity
        people = rules.cluster_people
    return Kind(float(density), None, int(contiguity), None), float(people)
