"""The networks have the published sizes, take any image, and learn."""

import copy

import pytest
import torch
from torch import nn

from popdask.errors import InputError
from popdask.imagery.model import build
from popdask.imagery.networks import (
    Block,
    CellPool,
    CountCNN,
    PopulationViT,
    PresenceCNN,
    fused,
    parameter_count,
)

COUNT_300M = {"blocks": 4, "base": 32, "extra": False, "dropout": 0.3}
FULL_SIZE = [
    (PresenceCNN, {}, 200, 4_483_873),
    (CountCNN, {}, 200, 9_574_081),
    (CountCNN, COUNT_300M, 600, 1_239_649),
    (PopulationViT, {}, 600, 2_919_937),
]
SMALL = [
    PresenceCNN(widths=(4, 8), hidden=(8,)),
    PresenceCNN(widths=(4, 4), hidden=(8, 4), residual=True),
    CountCNN(blocks=2, base=4, hidden=8),
    CountCNN(blocks=2, base=4, double=False, hidden=8, extra=False, residual=True),
    PopulationViT(pixels=40, width=12, layers=2),
]


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(("network", "arguments", "pixels", "parameters"), FULL_SIZE)
def test_full_size_takes_a_step_of_training(network, arguments, pixels, parameters):
    model = network(**arguments)
    assert parameter_count(model) == parameters
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    output = model(torch.randn(2, 1, pixels, pixels))
    assert output.shape == (2,)
    nn.functional.mse_loss(output, torch.tensor([3.0, 5.0])).backward()
    optimizer.step()
    after = model.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    still = [name for name, p in model.named_parameters() if torch.equal(before[name], after[name])]
    assert still == []


@pytest.mark.parametrize("model", SMALL, ids=lambda m: m.config["network"])
def test_a_fused_network_says_the_same_without_batch_norms(model):
    model = copy.deepcopy(model).train()  # as whoever goes on learning leaves it
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):  # as if it had learned
            for part in (layer.running_mean, layer.weight.data, layer.bias.data):
                part.normal_()
            layer.running_var.uniform_(0.5, 2)
    images, quick = torch.randn(5, 1, 40, 40), fused(model)
    assert model.training
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in quick.modules())
    with torch.inference_mode():
        torch.testing.assert_close(quick(images), model.eval()(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", SMALL, ids=lambda m: m.config["network"])
def test_a_configuration_builds_the_same_network(model):
    again = build(model.config)
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    x = torch.randn(2, 1, 40, 40)
    assert torch.equal(again.eval()(x), model.eval()(x))


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("network", [PresenceCNN, CountCNN])
def test_any_bands_and_any_cell_size(network, bands):
    model = network(bands=bands, **({"blocks": 3, "base": 4} if network is CountCNN else {}))
    for rows, columns in [(32, 32), (50, 47), (100, 100)]:
        assert model(torch.randn(2, bands, rows, columns)).shape == (2,)


def test_the_transformer_takes_any_bands():
    assert PopulationViT(bands=4, pixels=60, width=12, layers=1)(torch.randn(2, 4, 60, 60)).shape


def plain_presence(model, x):
    """The classifier written out with torch's functions."""
    F, state = nn.functional, model.state_dict()
    for i in range(len(model.config["widths"])):
        for j in (0, 3):
            name = f"features.{i}.convolve.{{}}.{{}}".format
            x = F.conv2d(x, state[name(j, "weight")], padding=1)
            norm = (state[name(j + 1, s)] for s in ("running_mean", "running_var"))
            scale = (state[name(j + 1, s)] for s in ("weight", "bias"))
            x = F.relu(F.batch_norm(x, *norm, *scale))
        x = F.max_pool2d(x, 2)
    x = F.adaptive_avg_pool2d(x, 4).flatten(1)
    *inner, last = [i for i, layer in enumerate(model.head) if isinstance(layer, nn.Linear)]
    for i in inner:
        x = F.relu(F.linear(x, state[f"head.{i}.weight"], state[f"head.{i}.bias"]))
    return F.linear(x, state[f"head.{last}.weight"], state[f"head.{last}.bias"])[:, 0]


def test_the_classifier_equals_its_description():
    model = PresenceCNN(widths=(4, 6, 8), hidden=(16, 8))
    model(torch.randn(8, 1, 48, 48))  # moves the running means of batch norm
    model.eval()
    x = torch.randn(3, 1, 48, 48)
    torch.testing.assert_close(model(x), plain_presence(model, x))


def test_attention_equals_its_formula():
    layer = PopulationViT(pixels=40, width=12, layers=1).eval().layers[0]
    x = torch.randn(2, 5, 12)
    q, k, v = layer.qkv(x).split(12, dim=2)
    heads = []
    for h in range(3):
        part = slice(4 * h, 4 * h + 4)
        weights = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / 2, dim=2)
        heads.append(weights @ v[..., part])
    torch.testing.assert_close(layer.attend(x), layer.out(torch.cat(heads, dim=2)))


def test_residual_blocks_add_what_came_in():
    block = Block(4, 4, double=True, bias=False, residual=True).eval()
    for layer in block.convolve:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    x = torch.rand(1, 4, 8, 8)
    assert torch.equal(block(x), nn.functional.max_pool2d(x, 2))


def test_a_ring_is_told_from_the_cell():
    """The same house in the cell and in its surroundings gives two different feature vectors."""
    pool = CellPool(1, ring=16, reduction=4)
    inside, outside = torch.zeros(2, 1, 2, 12, 12)
    inside[..., 6, 6] = outside[..., 0, 0] = 144.0
    assert pool(inside).tolist() == [[9.0, 9.0, 1.0, 1.0]]
    assert pool(outside).tolist() == [[0.0, 0.0, 1.0, 1.0]]
    assert CountCNN(blocks=2, base=4, ring=16)(torch.randn(2, 1, 48, 48)).shape == (2,)


@pytest.mark.parametrize(("pixels", "ring", "middle"), [(72, 24, slice(1, 3)), (30, 10, slice(1))])
def test_a_cell_is_found_on_a_coarse_map(pixels, ring, middle):
    pool, maps = CellPool(1, ring=ring, reduction=16), torch.rand(2, 3, pixels // 16, pixels // 16)
    cell = maps[:, :, middle, middle].mean((2, 3))
    torch.testing.assert_close(pool(maps), torch.cat([cell, maps.mean((2, 3))], dim=1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"network": "ResNet"}, "the network is 'ResNet', expected one of PresenceCNN"),
        ({"network": "CountCNN", "depth": 3}, "CountCNN cannot be built .*depth"),
        ({"network": "PopulationViT", "pixels": 50}, "expected multiples"),
        ({"network": "CountCNN", "blocks": 0}, "blocks of CountCNN is 0, expected at least 1"),
        ({"network": "CountCNN", "base": -4}, "base of CountCNN is -4"),
        ({"network": "CountCNN", "scale": 0.0}, "scale of CountCNN is 0.0, expected .* above 0"),
        ({"network": "CountCNN", "hidden": 0}, "hidden of CountCNN is 0"),
        ({"network": "CountCNN", "blocks": "two"}, "CountCNN cannot be built"),
        ({"network": "PresenceCNN", "widths": []}, r"widths of PresenceCNN is \(\)"),
        ({"network": "PresenceCNN", "widths": [8, 0]}, "widths of PresenceCNN is .*at least 1"),
        ({"network": "PresenceCNN", "dropout": 1.5}, "dropout of PresenceCNN is 1.5.* 0 to 1"),
        ({"network": "PopulationViT", "patch": 0}, "patch of PopulationViT is 0"),
        ({"network": "PopulationViT", "heads": 0}, "heads of PopulationViT is 0"),
        ({"network": "CountCNN", "ring": 3}, "ring is 3 pixels, expected 0 or at least"),
    ],
)
def test_a_wrong_configuration_is_named(config, message):
    with pytest.raises(InputError, match=message):
        build(config)
