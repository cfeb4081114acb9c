"""Trained networks survive files and journeys unchanged, and refuse what is not theirs."""

import contextlib
import json
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from dask.base import tokenize
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.imagery.model import (
    HEADER,
    LeakageWarning,
    Normalisation,
    TrainedModel,
    build,
    check_leakage,
)

PRESENCE = {"network": "PresenceCNN", "widths": (4, 8), "hidden": (8, 4)}
NETWORKS = {
    "presence": PRESENCE,
    "count": {"network": "CountCNN", "blocks": 2, "base": 4, "hidden": 8},
    "transformer": {"network": "PopulationViT", "pixels": 20, "width": 12, "layers": 1},
    "weighted": {"network": "CountCNN", "blocks": 2, "base": 4, "hidden": 8, "residual": True},
}


def trained(kind="presence", pixels=20, **fields):
    cells = np.array([[61397, 6775], [61398, 6775]])
    told = {
        "cell_size": 100.0,
        "resolution": 5.0,
        "context": 0,
        "split": "f00d",
        "training_cells": cells,
        "settings": {"rate": 1e-4},
        "figures": {"matthews": 0.84},
        "history": ({"epoch": 1, "training": 0.7, "validation": 0.6, "rate": 1e-4},),
    }
    return TrainedModel.untrained(kind, NETWORKS[kind], pixels=pixels, **(told | fields))


def images(n, pixels=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 1, pixels, pixels), np.uint8)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("way", ["file", "bytes", "pickle"])
def test_a_journey_changes_nothing(kind, way, tmp_path):
    model = trained(kind)
    if way == "file":
        model.save(tmp_path / "model.safetensors")
        again = TrainedModel.load(tmp_path / "model.safetensors")
        assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    else:
        again = (
            TrainedModel.from_bytes(model.to_bytes())
            if way == "bytes"
            else pickle.loads(pickle.dumps(model))
        )
    np.testing.assert_array_equal(again.predict(images(5)), model.predict(images(5)))
    assert again.to_bytes() == model.to_bytes()
    assert tokenize(again) == tokenize(model) != tokenize(trained(kind, split="other"))
    assert again.config == model.config
    assert repr(again) == repr(model)
    np.testing.assert_array_equal(again.training_cells, model.training_cells)
    for name in ("kind", "pixels", "cell_size", "resolution", "context", "split", "normalisation"):
        assert getattr(again, name) == getattr(model, name)
    assert again.settings == model.settings
    assert again.figures == model.figures
    assert tuple(again.history) == model.history


@pytest.mark.parametrize("kind", NETWORKS)
def test_predictions_equal_the_plain_network(kind):
    model = trained(kind)
    with torch.no_grad():
        output = model.module((torch.from_numpy(images(7)) / 255 - 0.5) / 0.5)
    expected = {
        "presence": torch.sigmoid(output),
        "transformer": torch.expm1(output).clamp(min=0),
    }.get(kind, output.clamp(min=0))
    np.testing.assert_allclose(model.predict(images(7)), expected, rtol=1e-4, atol=1e-5)
    assert (model.predict(images(7)) >= 0).all()


@settings(max_examples=20)
@given(
    parts=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    kind=st.sampled_from(sorted(NETWORKS)),
    seed=st.integers(0, 9),
)
def test_a_cell_gets_the_same_answer_in_any_company(parts, kind, seed):
    model, cells = trained(kind), images(sum(parts), seed=seed)
    whole = model.predict(cells, batch_size=4)
    split = np.split(cells, np.cumsum(parts)[:-1])
    pieces = np.concatenate([model.predict(part, batch_size=4) for part in split])
    np.testing.assert_array_equal(pieces, whole)
    order = np.random.default_rng(seed).permutation(len(cells))
    np.testing.assert_array_equal(model.predict(cells[order], batch_size=4), whole[order])


def test_predicting_leaves_torch_as_it_was():
    before = torch.get_num_threads()
    trained().predict(images(2), threads=before + 1)
    assert torch.get_num_threads() == before


def test_predicting_nothing_gives_nothing():
    assert trained().predict(images(0)).shape == (0,)


@pytest.mark.parametrize("shape", [(2, 3, 20, 20), (2, 1, 20, 21), (1, 20, 20)])
def test_other_images_are_refused(shape):
    with pytest.raises(InputError, match=r"expected \(n, 1, 20, 20\) for this model"):
        trained().predict(np.zeros(shape, np.uint8))


def test_normalisation_is_that_of_the_bands():
    raw = np.random.default_rng(0).integers(0, 3000, (6, 3, 5, 4)).astype(np.uint16)
    raw[:, 2] = 7
    scaled = Normalisation.of_bands(raw, white=10_000)(torch.from_numpy(raw)).numpy()
    np.testing.assert_allclose(scaled.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std((0, 2, 3)), [1, 1, 0], atol=1e-5)
    half = Normalisation.half(np.uint8)(torch.arange(256).view(1, 1, 16, 16))
    np.testing.assert_allclose(half.flatten(), (np.arange(256) / 255 - 0.5) / 0.5, atol=1e-6)
    with pytest.raises(InputError, match="standard deviations above 0"):
        Normalisation(255.0, (0.5,), (0.0,))


def test_pickled_weights_are_refused(tmp_path):
    torch.save(trained().module.state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model.pt is not safetensors .* pickled weights"):
        TrainedModel.load(tmp_path / "model.pt")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        TrainedModel.load(tmp_path / "none")


def test_truncated_weights_are_refused(tmp_path):
    (tmp_path / "half").write_bytes(trained().to_bytes()[:-100])
    with pytest.raises(InputError, match="half is not safetensors"):
        TrainedModel.load(tmp_path / "half")


def test_foreign_weights_are_refused(tmp_path):
    safetensors.torch.save_file(build(PRESENCE).state_dict(), tmp_path / "foreign")
    with pytest.raises(InputError, match="foreign holds weights without popdask's header"):
        TrainedModel.load(tmp_path / "foreign")


@pytest.mark.parametrize("change", [{"widths": (4, 6)}, {"widths": (4, 8, 8)}, {"bands": 3}])
def test_weights_that_do_not_match_the_configuration_are_refused(change, tmp_path):
    data = trained().to_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][HEADER])
    header["config"] |= change
    tensors = safetensors.torch.load(data)
    safetensors.torch.save_file(tensors, tmp_path / "w", {HEADER: json.dumps(header)})
    with pytest.raises(InputError, match=r"weights in .*w do not match its configuration"):
        TrainedModel.load(tmp_path / "w")


def test_an_unknown_kind_is_named():
    with pytest.raises(InputError, match="kind is 'guess', expected one of presence"):
        TrainedModel.untrained("guess", PRESENCE, pixels=20)


def test_evaluating_on_training_cells_warns_of_leakage():
    model = trained()
    with pytest.warns(LeakageWarning, match="leakage: 1 of the 3 cells") as caught:
        assert check_leakage(model, [61397, 61397, 6775], [6775, 6776, 61397]) == 1
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("size", "cells", "leaked"),
    [
        (300.0, [[20465, 2258], [20466, 2258]], 1),
        (300.0, [[20464, 2258]], 0),
        (50.0, [[122794, 13550], [122795, 13551], [122799, 13550]], 2),
        (50.0, [[122793, 13550]], 0),
    ],
)
def test_cells_of_another_size_leak_where_they_overlap(size, cells, leaked):
    model = trained(training_cells=np.array([[61397, 6775]]))
    with pytest.warns(LeakageWarning) if leaked else contextlib.nullcontext():
        assert check_leakage(model, *np.transpose(cells), cell_size=size) == leaked
