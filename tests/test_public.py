"""What every public name owes its user: types, a docstring in numpydoc's form, an example."""

import ast
import doctest
import inspect
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
from numpydoc.docscrape import ClassDoc, FunctionDoc

import popdask
from popdask.synthetic import moving_cities
from popdask.tracking.flow import moving_cells

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "_ext"))
api_reference = import_module("api_reference")
NAMES = [name for name in popdask.__all__ if name != "__version__"]
VERBS = [name for name in NAMES if inspect.isroutine(getattr(popdask, name))]
CLASSES = [name for name in NAMES if inspect.isclass(getattr(popdask, name))]


def parameters(found):
    return {
        name: parameter
        for name, parameter in inspect.signature(found).parameters.items()
        if name not in ("self", "cls")
    }


def described(doc):
    """The names in a Parameters section, where several may share a line."""
    lines = (entry.name for entry in doc["Parameters"])
    return {name.strip().lstrip("*") for line in lines for name in line.split(":")[0].split(",")}


def documented_fields(found):
    """Names of a class's attributes that have a docstring below them."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(found)).body)
    return {
        first.target.id
        for first, second in pairwise(body)
        if isinstance(first, ast.AnnAssign)
        and isinstance(second, ast.Expr)
        and isinstance(second.value, ast.Constant)
    }


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_tells_what_it_takes_and_what_it_gives(name):
    verb = getattr(popdask, name)
    doc, signature = FunctionDoc(verb), inspect.signature(verb)
    assert set(parameters(verb)) == described(doc)
    assert signature.return_annotation is not inspect.Signature.empty
    if signature.return_annotation not in (None, "None"):
        assert doc["Returns"] or doc["Yields"]
    assert doc["Summary"] and doc["Summary"][0].endswith(".")


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_has_all_its_types(name):
    for parameter in parameters(getattr(popdask, name)).values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


@pytest.mark.parametrize("name", VERBS)
def test_its_types_are_shown_by_their_short_names(name):
    assert "numpy." not in str(inspect.signature(getattr(popdask, name)))


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_tells_what_it_is_made_of(name):
    found = getattr(popdask, name)
    doc = ClassDoc(found)
    assert doc["Summary"]
    if issubclass(found, Exception):
        return
    asked = set(parameters(found))
    missing = asked - described(doc) - documented_fields(found)
    # The name of a dataclass's field may say all; the other parameters have a sentence.
    assert not missing or (hasattr(found, "__dataclass_fields__") and missing < asked)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_an_example(name):
    found = getattr(popdask, name)
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(found))
    assert examples
    assert not all(example.options.get(doctest.SKIP) for example in examples)
    assert any(name in example.source + example.want for example in examples)


def test_whatever_the_reference_lists_has_an_example_too():
    told, parser = sorted(api_reference.public()), doctest.DocTestParser()
    found = [(module, name, getattr(import_module(module), name)) for module, name in told]
    lacking = [
        f"{module}.{name}"
        for module, name, what in found
        if api_reference._is_code(what)
        and all(
            example.options.get(doctest.SKIP)
            for example in parser.get_examples(inspect.getdoc(what) or "")
        )
    ]
    assert len(told) > 150 and lacking == []


def test_the_rooms_are_there_without_an_import_of_their_own():
    for name in ("imagery", "io", "metrics", "plot", "synthetic", "tracking"):
        assert getattr(popdask, name).__name__ == f"popdask.{name}"
        assert name in dir(popdask)


def test_arrays_of_tracking_say_what_they_hold_and_in_which_unit():
    world = moving_cities(frames=6)
    population = world.population.population[:2, 60:90, 60:90]
    flow = popdask.optical_flow(population)
    features = popdask.stack_features(population, flow)
    encoder = popdask.fit_autoencoder(features, epochs=1, windows_per_epoch=32)
    latent = popdask.encode(features, encoder)
    classes = popdask.kmeans(latent, 3)
    community = popdask.dbscan(classes, eps=2, min_samples=4)
    domain, moving = popdask.domain(population), moving_cells(population)
    held = (population, flow.u, flow.v, domain, moving, latent, classes, community, world.labels)
    assert len({array.attrs["long_name"] for array in held}) == len(held)
    assert [array.attrs["units"] for array in held[:3]] == ["people per cell"] + [
        "cells per frame"
    ] * 2
    assert {array.attrs["units"] for array in held[3:]} == {"1"}
    for labels in (classes, community, world.labels):
        assert labels.attrs["long_name"].endswith(" of the cell, −1 = none")
