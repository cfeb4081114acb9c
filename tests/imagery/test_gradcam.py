"""Grad-CAM finds what an answer hangs on, where that is known; and the cells that tell most."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.imagery.estimate import gradcam, telling_cells
from popdask.imagery.model import TrainedModel
from popdask.imagery.networks import CountCNN, PopulationViT, PresenceCNN


def two_channels(weights):
    """A regressor with two feature maps, light and darkness, halved in size; people are a sum.

    The head counts weights[0] people for all of the light, and weights[1] for all of the darkness.
    """
    module = CountCNN(blocks=1, base=2, double=False, hidden=2, extra=False)
    for values in module.parameters():
        values.data.zero_()
    convolution, norm = module.features[0].convolve[:2]
    convolution.weight.data[:, 0, 1, 1] = torch.tensor([1.0, -1.0])
    norm.weight.data[:], norm.eps = 1, 0.0
    first, last = (part for part in module.head if isinstance(part, torch.nn.Linear))
    first.weight.data[:] = torch.eye(2)
    last.weight.data[0] = torch.tensor(weights)
    return module


def photo():
    """A grey image (16, 16) with a light house and a dark wood, on whole 2 × 2 pixels."""
    image = np.full((16, 16), 127.5, "float32") / 255
    image[2:6, 2:6] = 1.0
    image[10:14, 8:14] = 0.25
    return image


@pytest.mark.parametrize(("weights", "channel"), [((1.0, -1.0), 0), ((-3.0, 2.0), 1)])
def test_equals_the_weighted_channel_where_only_one_speaks_for_people(weights, channel):
    """Each channel's mean gradient is its weight over the map's 64 places; the other is against."""
    image = photo()
    found = gradcam(two_channels(weights), image)
    normal = (image - 0.5) / 0.5
    expected = np.maximum(normal if channel == 0 else -normal, 0)
    small = expected.reshape(8, 2, 8, 2).max((1, 3))
    large = torch.nn.functional.interpolate(
        torch.from_numpy(small)[None, None], (16, 16), mode="bilinear"
    )[0, 0].numpy()
    np.testing.assert_allclose(found, large / large.max(), atol=1e-6)
    assert found.dtype == np.float32
    where = np.unravel_index(found.argmax(), found.shape)
    assert (2 <= where[0] < 6 and 2 <= where[1] < 6) == (channel == 0)


def test_both_channels_are_weighed():
    """Light counts twice as much as darkness, and the house is twice as light as the wood dark."""
    found = gradcam(two_channels((2.0, 1.0)), photo())
    assert found[4, 4] == pytest.approx(1.0)
    assert found[12, 11] == pytest.approx(0.25)
    assert found[8, 2] == 0


def test_nothing_speaks_for_people_in_an_image_against_them():
    assert not gradcam(two_channels((-1.0, -1.0)), photo()).any()


def with_hooks(model, image, layer):
    """The map that goes into a layer and its gradient, caught as the whole network runs."""
    seen = {}

    def keep(module, arguments):
        seen["map"] = arguments[0].requires_grad_()
        seen["map"].retain_grad()

    hook = layer.register_forward_pre_hook(keep)
    model.module(model.normalisation(torch.from_numpy(image[None]))).backward()
    hook.remove()
    return seen["map"].detach()[0], seen["map"].grad[0]


def weighed(maps, gradient, size):
    """The formula of the method, channel by channel, at the size of the image, from 0 to 1."""
    total = torch.relu(sum(g.mean() * m for g, m in zip(gradient, maps, strict=True)))
    large = torch.nn.functional.interpolate(total[None, None], (size, size), mode="bilinear")[0, 0]
    assert large.max() > 0
    return (large / large.max()).numpy()


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype("uint8")


def test_equals_the_gradients_of_a_whole_convolutional_network():
    network = {"network": "PresenceCNN", "bands": 3, "widths": (4, 8), "hidden": (8,)}
    model = TrainedModel.untrained("presence", network, pixels=33, seed=1)
    image = noise(3, 33, 33)
    maps, gradient = with_hooks(model, image, model.module.head)
    np.testing.assert_allclose(gradcam(model, image), weighed(maps, gradient, 33), atol=1e-5)


def test_equals_the_gradients_of_a_whole_transformer():
    """The map are the codes of the 4 × 4 patches, without the class token."""
    network = {"network": "PopulationViT", "pixels": 40, "patch": 10, "width": 12, "layers": 2}
    model = TrainedModel.untrained("transformer", network, pixels=40, seed=1)
    image = noise(1, 40, 40)
    codes, gradient = with_hooks(model, image, model.module.layers[-1])
    maps, gradient = (values[1:].T.reshape(12, 4, 4) for values in (codes, gradient))
    np.testing.assert_allclose(gradcam(model, image), weighed(maps, gradient, 40), atol=1e-5)


@pytest.mark.parametrize(
    "module",
    [
        PresenceCNN(widths=(4, 8, 8), hidden=(8,), residual=True),
        PresenceCNN(widths=(4, 8), hidden=(8,), ring=12),
        CountCNN(blocks=2, base=4, hidden=8),
        PopulationViT(pixels=60, patch=10, width=12, layers=1),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_network_gives_a_map_of_the_image_and_stays_as_it_was(module, dtype):
    torch.manual_seed(0)
    image = (np.random.default_rng(0).random((1, 60, 60)) * 200).astype(dtype)
    before = {name: values.clone() for name, values in module.state_dict().items()}
    found = gradcam(module, image)
    assert found.shape == (60, 60)
    assert found.min() >= 0
    assert found.max() in (0, 1)
    np.testing.assert_array_equal(gradcam(module, image), found)
    assert all(torch.equal(values, before[name]) for name, values in module.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def test_other_images_than_the_model_s_are_named():
    model = TrainedModel.untrained("count", {"network": "CountCNN", "blocks": 1}, pixels=20)
    with pytest.raises(InputError, match=r"the image has .* \(3, 20, 20\), expected \(1, 20, 20\)"):
        gradcam(model, np.zeros((3, 20, 20), "uint8"))
    with pytest.raises(InputError, match="the model is a Linear"):
        gradcam(torch.nn.Linear(1, 1), np.zeros((20, 20), "uint8"))


def test_the_best_the_typical_and_the_worst_are_told():
    true = np.array([0, 0, 0, 5, 5, 5, 5, 5, 5, 5, np.nan])
    predicted = np.array([0, 0.4, 9, 5, 6, 7, 8, 9, 10, np.nan, 3])
    picked = telling_cells(predicted, true, n=1)
    assert {name: cells.tolist() for name, cells in picked.items()} == {
        "best": [3],  # the empty cells found empty show nothing
        "typical": [6],
        "worst": [2],
    }


@settings(max_examples=25)
@given(seed=st.integers(0, 99), cells=st.integers(0, 40), n=st.integers(1, 6))
def test_telling_cells_are_in_order_and_none_is_told_twice(seed, cells, n):
    rng = np.random.default_rng(seed)
    true, predicted = rng.poisson(1.0, cells) * 1.0, rng.gamma(0.5, 2.0, cells)
    picked = telling_cells(predicted, true, n)
    told = np.concatenate([*picked.values()])
    assert len(set(told.tolist())) == len(told)
    asked = (true > 0) | (predicted > 0.5)
    assert asked[told].all()
    assert {len(some) for some in picked.values()} == {min(n, asked.sum() // 3)}
    error = np.abs(predicted - true)
    if len(told):
        assert error[picked["best"]].max() <= error[picked["typical"]].min()
        assert error[picked["typical"]].max() <= error[picked["worst"]].min()
        assert error[picked["worst"][0]] == error[asked].max()


@pytest.mark.parametrize(
    ("predicted", "true", "n"), [([1], [1, 2], 1), ([[1]], [[1]], 1), ([1], [1], 0)]
)
def test_unlike_arrays_are_named(predicted, true, n):
    with pytest.raises(InputError, match=r"^telling_cells got"):
        telling_cells(predicted, true, n)
