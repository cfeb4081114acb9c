"""The walls of the house that a linter does not see; which way imports run is in pyproject.toml."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import popdask

HOUSE = Path(popdask.__file__).parent


def test_only_the_cluster_module_makes_dask_clients():
    def makes(path):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        calls = [node.func for node in nodes if isinstance(node, ast.Call)]
        names = {getattr(func, "id", getattr(func, "attr", "")) for func in calls}
        names -= {node.name for node in nodes if isinstance(node, ast.ClassDef)}
        return {name for name in names if name == "Client" or name.endswith("Cluster")}

    made = {path.relative_to(HOUSE).as_posix(): makes(path) for path in HOUSE.rglob("*.py")}
    makers = {name: found for name, found in made.items() if found}
    assert makers == {"cluster.py": {"Client", "LocalCluster"}}


def test_every_room_is_on_the_page_of_the_architecture():
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.stem for path in HOUSE.iterdir() if path.is_dir() or path.suffix == ".py"}
    rooms -= {"__init__", "__main__", "__pycache__"}
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
