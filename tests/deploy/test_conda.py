"""The recipe for conda: what pyproject.toml asks for, by the names that conda-forge has."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import popdask

ROOT = Path(__file__).parents[2]
CALLED = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


@pytest.fixture(scope="module")
def recipe():
    return yaml.safe_load((ROOT / "deploy" / "conda" / "recipe.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def wanted(requirements):
    """Names and least versions, extras and notes left out."""
    found = (Requirement(text) for text in requirements)
    return {(CALLED.get(each.name, each.name), str(each.specifier)) for each in found}


def told(lines):
    return {tuple(line.split(" ", 1)) if " " in line else (line, "") for line in lines}


def test_it_asks_for_what_the_wheel_asks_for(recipe, project):
    needs, python = recipe["requirements"], ("python", project["project"]["requires-python"])
    assert told(needs["run"]) == wanted(project["project"]["dependencies"]) | {python}
    host = wanted(project["build-system"]["requires"]) | {python, ("pip", "")}
    assert told(needs["host"]) == host


def test_it_is_of_this_version_with_its_commands_and_licence(recipe, project):
    assert recipe["context"]["version"] == popdask.__version__
    assert recipe["package"] == {"name": "popdask", "version": "${{ version }}"}
    scripts = [f"{name} = {place}" for name, place in project["project"]["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts
    about = {key: project["project"][key] for key in ("license", "description")}
    assert recipe["about"]["license"] == about["license"]
    assert recipe["about"]["summary"] == about["description"]
    assert recipe["about"]["license_file"] == project["project"]["license-files"]


def test_it_has_the_form_of_a_recipe(recipe):
    parts = ["schema_version", "context", "package", "source", "build", "requirements", "tests"]
    assert [*recipe] == [*parts, "about"] and recipe["schema_version"] == 1
    folder = ROOT / "deploy" / "conda"
    assert (folder / recipe["source"]["path"] / "pyproject.toml").is_file()
    assert all((ROOT / name).is_file() for name in recipe["about"]["license_file"])
    used = set(re.findall(r"\$\{\{ (\w+) \}\}", str(recipe)))
    assert used <= {*recipe["context"], "PYTHON"}
