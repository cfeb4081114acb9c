"""EfficientNet-B3 has the names, shapes and numbers of the published one, and reads its weights."""

import hashlib
import pickle

import pytest
import safetensors.torch
import torch

from popdask.errors import InputError
from popdask.imagery.scenes import MEAN, STD, URL, EfficientNetB3, load_efficientnet

# SHA-256 over "name shape dtype" of each entry, one per line, of torchvision 0.29's efficientnet_b3
PUBLISHED = "c866ec5905d022e9bcfb43d8738e4de3c68cf75772120e6a52b37ff6b62e497d"


@pytest.fixture(scope="module")
def network():
    return load_efficientnet(seed=0)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch.hub with an empty folder, and no way to the internet."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


def state_of(network):
    """A state dict as safetensors wants it."""
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def expected_shapes():
    """Names and shapes by the paper's table, each block written out."""
    shapes = {}

    def conv(name, *shape):
        shapes[f"{name}.0.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.1.{part}"] = shape[:1]
        shapes[f"{name}.1.num_batches_tracked"] = ()

    widths, blocks = (40, 24, 32, 48, 96, 136, 232, 384), (2, 3, 3, 5, 5, 6, 2)
    conv("features.0", 40, 3, 3, 3)
    for stage, kernel in enumerate((3, 3, 5, 3, 5, 5, 3), 1):
        for block in range(blocks[stage - 1]):
            before, after = widths[stage - 1 if block == 0 else stage], widths[stage]
            wide = before if stage == 1 else 6 * before
            name = f"features.{stage}.{block}.block"
            first = 0
            if stage > 1:
                conv(f"{name}.0", wide, before, 1, 1)
                first = 1
            conv(f"{name}.{first}", wide, 1, kernel, kernel)
            narrow = before // 4
            shapes[f"{name}.{first + 1}.fc1.weight"] = (narrow, wide, 1, 1)
            shapes[f"{name}.{first + 1}.fc1.bias"] = (narrow,)
            shapes[f"{name}.{first + 1}.fc2.weight"] = (wide, narrow, 1, 1)
            shapes[f"{name}.{first + 1}.fc2.bias"] = (wide,)
            conv(f"{name}.{first + 2}", after, wide, 1, 1)
    conv("features.8", 1536, 384, 1, 1)
    shapes["classifier.1.weight"], shapes["classifier.1.bias"] = (1000, 1536), (1000,)
    return shapes


def test_names_and_shapes_are_those_of_the_paper_s_table():
    state = EfficientNetB3().state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == expected_shapes()
    assert len(state) == 574


def test_names_and_shapes_are_torchvision_s():
    state = EfficientNetB3().state_dict()
    lines = [f"{name} {tuple(value.shape)} {value.dtype}" for name, value in state.items()]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == PUBLISHED


def test_it_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in EfficientNetB3().parameters()) == 12_233_232


def test_each_stage_has_its_resolution():
    x, sides = torch.zeros(1, 3, 64, 64), []
    with torch.inference_mode():
        for stage in EfficientNetB3().eval().features:
            x = stage(x)
            sides.append(x.shape[-1])
    assert sides == [32, 32, 16, 8, 4, 4, 2, 2, 2]


def test_features_are_the_mean_over_places(network, images):
    with torch.inference_mode():
        features = network.embed(images)
        assert features.shape == (2, 1536)
        torch.testing.assert_close(features, network.features(images).mean((2, 3)))
        torch.testing.assert_close(network(images), network.classifier[1](features))


def test_residual_blocks_add_their_input(network):
    block = network.features[2][1]
    x = torch.rand(1, 32, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(block(x), x + block.block(x))
        assert not network.features[2][0].residual


def test_a_random_network_is_a_function_of_its_seed(network, images):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    again, other = load_efficientnet(seed=0), load_efficientnet(seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.inference_mode():
        assert torch.equal(again.embed(images), network.embed(images))
        assert not torch.allclose(other.embed(images), network.embed(images), rtol=0.1)


def test_what_passes_a_random_network_neither_fades_nor_swells(network):
    x = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.inference_mode():
        for stage in network.features:
            x = stage(x)
            assert 0.05 < x.std() < 20


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_weights_come_back_from_a_file(network, images, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(state_of(network), path)
    for given in (path, str(path)):
        with torch.inference_mode():
            assert torch.equal(load_efficientnet(given).embed(images), network.embed(images))


def test_a_classifier_for_other_classes_is_no_matter(network, images, tmp_path):
    state = {n: v for n, v in state_of(network).items() if not n.startswith("classifier")}
    state["classifier.1.weight"], state["classifier.1.bias"] = torch.zeros(7, 1536), torch.zeros(7)
    safetensors.torch.save_file(state, tmp_path / "seven.safetensors")
    with torch.inference_mode():
        loaded = load_efficientnet(tmp_path / "seven.safetensors")
        assert torch.equal(loaded.embed(images), network.embed(images))


def test_the_network_is_ready_for_use(network):
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_the_address_carries_the_hash_that_is_checked():
    """As torchvision publishes it since 0.17; the file's SHA-256 begins with b3899882."""
    assert URL == "https://download.pytorch.org/models/efficientnet_b3_rwightman-b3899882.pth"
    assert torch.hub.HASH_REGEX.search(URL.rsplit("/", 1)[1])[1] == "b3899882"


def test_imagenet_without_the_internet_is_one_sentence(hub):
    with pytest.raises(InputError, match=r"^weights = \"imagenet\" cannot be fetched") as caught:
        load_efficientnet("imagenet")
    assert URL in str(caught.value)
    assert str(hub) in str(caught.value)


def test_imagenet_is_read_where_it_was_put(hub, network, images):
    hub.mkdir(parents=True)
    torch.save(network.state_dict(), hub / URL.rsplit("/", 1)[1])
    with torch.inference_mode():
        assert torch.equal(load_efficientnet("imagenet").embed(images), network.embed(images))


def test_a_missing_file_is_named(tmp_path):
    for name in ("absent.safetensors", "absent.pth"):
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            load_efficientnet(tmp_path / name)


@pytest.mark.parametrize("name", ["text.safetensors", "text.pth", "empty.pth", "empty.safetensors"])
def test_a_file_of_something_else_is_named(tmp_path, name):
    (tmp_path / name).write_text("" if name.startswith("empty") else "not weights at all\n" * 9)
    with pytest.raises(InputError, match=f"{name} are not a file of tensors alone"):
        load_efficientnet(tmp_path / name)


class Trap:
    """Code that a careless reader of pickles would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


def test_code_in_a_file_is_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    torch.save({"features.0.0.weight": Trap(sprung)}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match=r"trap.pth are not a file of tensors alone"):
        load_efficientnet(tmp_path / "trap.pth")
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists(), "the trap works"


def test_weights_of_another_network_are_refused(network, tmp_path):
    state = state_of(network)
    state["features.8.0.weight"] = torch.zeros(1280, 384, 1, 1)
    del state["features.0.0.weight"]
    safetensors.torch.save_file(state, tmp_path / "b0.safetensors")
    with pytest.raises(InputError, match=r"no features\.0\.0\.weight; 2 of 574 entries"):
        load_efficientnet(tmp_path / "b0.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match=r"list\.pth do not fit"):
        load_efficientnet(tmp_path / "list.pth")
