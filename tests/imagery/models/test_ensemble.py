"""The mean of models says the mean of what they say, and is kept as one of them is."""

from dataclasses import replace

import numpy as np
import pytest

from popdask.errors import InputError
from popdask.imagery.features import FeatureModel
from popdask.imagery.model import Normalisation, TrainedModel, mean_of

COUNT = {"network": "CountCNN", "blocks": 2, "base": 4}
VIT = {"network": "PopulationViT", "patch": 4, "width": 12, "layers": 1, "heads": 2, "pixels": 16}
PRESENCE = {"network": "PresenceCNN", "widths": (4,), "hidden": (4,)}


def images(n=5):
    return np.random.default_rng(0).integers(0, 255, (n, 1, 16, 16)).astype(np.uint8)


def model(kind="count", network=COUNT, **fields):
    made = TrainedModel.untrained(kind, network, pixels=16, cell_size=100.0, **fields)
    return replace(made, normalisation=Normalisation.of_bands(images(), None))


@pytest.mark.parametrize(
    ("kinds", "networks"),
    [
        (("count", "count"), (COUNT, {**COUNT, "base": 8})),
        (("transformer", "count"), (VIT, COUNT)),
        (("presence",) * 2, (PRESENCE, {**PRESENCE, "residual": True})),
    ],
)
def test_the_mean_is_of_what_the_members_say(kinds, networks):
    members = [model(*pair, seed=i) for i, pair in enumerate(zip(kinds, networks, strict=True))]
    said = [member.predict(images(), batch_size=5) for member in members]
    joined = mean_of(members)
    found = joined.predict(images(), batch_size=5)
    np.testing.assert_allclose(found, np.mean(said, 0), rtol=1e-4, atol=1e-6)
    again = TrainedModel.from_bytes(joined.to_bytes())
    np.testing.assert_array_equal(again.predict(images(), batch_size=5), found)


def test_the_mean_is_as_precise_as_its_members():
    half = [model(seed=i, settings={"precision": "bfloat16"}) for i in range(2)]
    joined = mean_of(half)
    assert joined.settings["precision"] == "bfloat16"
    said = np.mean([member.predict(images()) for member in half], 0)
    np.testing.assert_allclose(joined.predict(images()), said, rtol=1e-6)
    full = replace(half[0], settings={"precision": "float32"})
    plain = TrainedModel.untrained("count", {"network": "features"}, pixels=16, cell_size=100.0)
    plain = replace(plain, settings={"precision": "bfloat16"})
    for other in (full, plain, replace(full, settings={})):
        assert "precision" not in mean_of([half[0], other]).settings


def test_plain_features_and_a_network_go_together():
    raw = Normalisation(1.0, (0.0,), (1.0,))
    plain = FeatureModel(head="ridge")
    with_weights = {**plain.state_dict(), "value": plain.value.detach() + 0.01}
    plain.load_state_dict(with_weights)
    members = [TrainedModel(plain, "count", raw, 16, cell_size=100.0), model()]
    said = [member.predict(images()) for member in members]
    np.testing.assert_allclose(mean_of(members).predict(images()), np.mean(said, 0), rtol=1e-4)


def test_the_mean_knows_what_any_of_its_members_has_seen():
    members = [model(training_cells=np.array([[1, i], [5, 5]])) for i in (2, 3)]
    assert mean_of(members).training_cells.tolist() == [[1, 2], [1, 3], [5, 5]]


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(InputError, match="there are no models"):
        mean_of([])
    with pytest.raises(InputError, match="the split of the models is one, other; expected the"):
        mean_of([model(split="one"), model(split="other")])
    with pytest.raises(InputError, match="some of the models are of presence and others of peo"):
        mean_of([model(), model("presence", PRESENCE)])
