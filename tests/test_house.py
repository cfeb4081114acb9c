"""The walls of the house: imports run down only, and importing popdask stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import popdask

HOUSE = Path(popdask.__file__).parent

# Every module imports from lower floors only; the rooms of one floor do not know each other.
FLOORS = (
    {"compiled", "errors", "whole"},
    {
        "_local_cluster",
        "arguments",
        "arithmetic",
        "cards",
        "devices",
        "exact",
        "object_store",
        "secrets",
        "settings_files",
        "tensor_files",
    },
    {"cube", "synthetic", "metrics"},
    {"tracking", "imagery"},
    {"_cluster_file", "store", "job", "export", "progress", "figures", "fetch"},
    {"report"},
    {"pipelines"},
    {"cluster", "console", "demo"},
    {"running"},
    {"cli"},
    {"__main__"},
)

# Stages of the tracking wing meet in named dimensions. What they share lies below them.
GROUND = (
    {
        "components",
        "halo",
        "reduction",
        "sampling",
        "domain",
        "tally",
        "network",
        "tiles",
        "warping",
    },
    {"fitted"},
)
STAGES = {
    "flow": {"_coarse_to_fine", "_horn_schunck", "_matching", "_warped", "flow"},
    "registration": {"registration"},
    "growth": {"growth"},
    "derivatives": {"derivatives"},
    "autoencoder": {"autoencoder"},
    "encoding": {"convolution", "encoding"},
    "clustering": {"_nearest", "classes", "clustering"},
    "dbscan": {"_disc", "dbscan", "threshold"},
    "urbanisation": {
        "_urban_blocks",
        "_urban_cells",
        "_urban_edges",
        "_urban_graph",
        "_urban_rules",
        "kinds",
        "lattice",
        "names",
        "settlements",
        "urbanisation",
    },
    "linking": {"_pairs", "events", "integrity", "lineage", "linking"},
    "summary": {"_outlines", "motion", "summary"},
    "analysis": {"analysis"},
}
EXCEPTIONS = {("linking", "flow")}  # the links' two-frame flow


def modules():
    return [path for path in HOUSE.rglob("*.py") if path.name != "__init__.py"]


def imported(path):
    """Dotted names within popdask that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            base = node.module
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return {tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "popdask"}


def room(parts):
    """The room of the ground plan that a dotted name leads to."""
    return parts[0] if parts else None


def floor(name):
    (number,) = [i for i, rooms in enumerate(FLOORS) if name in rooms]
    return number


def name_of(path):
    return path.relative_to(HOUSE).with_suffix("").parts


@pytest.mark.parametrize("path", modules(), ids=lambda p: ".".join(name_of(p)))
def test_imports_run_down_only(path):
    here = room(name_of(path))
    rooms = {room(parts) for parts in imported(path)}
    known = set().union(*FLOORS)
    for other in (rooms & known) - {here}:
        assert floor(other) < floor(here), f"{here} imports {other}, which is not below it"


# The rooms of the imagery wing, from the ground up, and those below that each may import.
IMAGERY: dict[str, set[str]] = {
    "grid": set(),
    "tables": set(),
    "features": set(),
    "mosaic": {"grid"},
    "cells": {"grid", "tables"},
    "models": {"features"},
    "training": {"cells", "features", "models"},
    "tuning": {"cells", "models", "training"},  # a trial is a training
    "inference": {"grid", "cells", "models"},
    "gradcam": {"models"},
    "census": {"tables"},
    "evaluation": {"tables", "features"},
    "scenes": {"grid", "cells", "models"},
}


def wing(name):
    return sorted(path for path in modules() if path.parent == HOUSE / name)


def check_stage(path, stages, shared, exceptions):
    """A module imports its own stage, and what all stages share; what is shared, only that."""

    def stage_of(module):
        return next((stage for stage, rooms in stages.items() if module in rooms), None)

    here = room(name_of(path))
    neighbours = {parts[1] for parts in imported(path) if room(parts) == here and parts[1:]}
    for other in neighbours & (shared | set().union(*stages.values())):
        if path.stem in shared:
            assert other in shared, f"{path.stem} is shared by all stages, but imports {other}"
        elif other not in shared:
            pair = (stage_of(path.stem), stage_of(other))
            assert pair[0] == pair[1] or pair in exceptions, f"{path.stem} imports {other}"


@pytest.mark.parametrize("path", wing("tracking"), ids=lambda path: path.stem)
def test_stages_of_tracking_do_not_import_one_another(path):
    check_stage(path, STAGES, set().union(*GROUND), EXCEPTIONS)


def imagery():
    return [path for path in modules() if path.is_relative_to(HOUSE / "imagery")]


@pytest.mark.parametrize("path", imagery(), ids=lambda path: ".".join(name_of(path)[1:]))
def test_rooms_of_imagery_import_only_what_lies_below(path):
    here = name_of(path)[1]
    beside = [parts[1:] for parts in imported(path) if room(parts) == "imagery" and parts[1:]]
    others = {parts[0] for parts in beside} - {here}
    assert others <= IMAGERY[here], f"{here} imports {others - IMAGERY[here]}, not below it"
    hidden = [parts for parts in beside if any(part.startswith("_") for part in parts)]
    hidden = [".".join(parts) for parts in hidden if parts[0] != here]
    assert not hidden, f"{here} imports {hidden}, which are another room's own"


def test_the_rooms_of_imagery_stand_on_one_another():
    below: set[str] = set()
    for name, used in IMAGERY.items():
        assert used <= below
        below.add(name)


def test_only_the_cluster_module_makes_dask_clients():
    def makes(path):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        calls = [node.func for node in nodes if isinstance(node, ast.Call)]
        names = {getattr(func, "id", getattr(func, "attr", "")) for func in calls}
        names -= {node.name for node in nodes if isinstance(node, ast.ClassDef)}
        return {name for name in names if name == "Client" or name.endswith("Cluster")}

    made = {path.relative_to(HOUSE).as_posix(): makes(path) for path in HOUSE.rglob("*.py")}
    makers = {name: found for name, found in made.items() if found}
    assert makers == {"cluster.py": {"Client"}, "_local_cluster.py": {"LocalCluster"}}


def test_every_room_is_on_the_plan():
    rooms = {room(name_of(path)) for path in modules()}
    assert rooms == set().union(*FLOORS)
    stages = {path.stem for path in (HOUSE / "tracking").glob("*.py")} - {"__init__"}
    assert stages == set().union(*STAGES.values(), *GROUND)
    assert {name_of(path)[1] for path in imagery()} == set(IMAGERY)
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert {name for name in rooms if f"`{name}`" not in page and f"`{name}/`" not in page} == set()


def test_importing_popdask_loads_nothing_heavy():
    script = "import sys, popdask; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "dask", "distributed", "xarray", "numba", "sklearn", "matplotlib", "pandas"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("name", popdask.__all__)
def test_every_public_verb_is_there_and_says_what_it_does(name):
    found = getattr(popdask, name)
    assert name == "__version__" or found.__doc__
    assert name in dir(popdask)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'clusterize'"):
        popdask.clusterize  # noqa: B018
