import os
import pickle
from collections import Counter
from itertools import product
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from popdask.blocks.sampling import gather_windows
from popdask.blocks.torch import pack, unpack
from popdask.errors import InputError
from popdask.tracking.autoencoder import (
    HEADER,
    EncoderConfig,
    FittedEncoder,
    Scaling,
    WindowAutoencoder,
    fit_autoencoder,
    train,
    training_windows,
)
from popdask.tracking.encoding import encode, reconstruct, stack_features

DATA = Path(os.environ.get("POPDASK_DATA") or "/nonexistent")
OSLO = DATA / "oslo_250m"


def towns(height: int = 60, width: int = 70, seed: int = 0) -> xr.DataArray:
    """Some round towns in empty land, with a smooth motion: raw features (channel, y, x)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    people = np.zeros((height, width))
    for _ in range(8):
        row, column = rng.uniform(0, height), rng.uniform(0, width)
        size = rng.uniform(2, 5)
        people += rng.uniform(50, 900) * np.exp(
            -((y - row) ** 2 + (x - column) ** 2) / (2 * size**2)
        )
    u, v = np.gradient(people) / np.float64(50)
    raw = np.stack([np.floor(people), u, v]).clip(max=1000).astype(np.float32)
    return xr.DataArray(raw, dims=("channel", "y", "x"))


def weights(encoder: FittedEncoder) -> list[np.ndarray]:
    return [tensor.numpy().copy() for tensor in encoder.module.state_dict().values()]


def same(one: FittedEncoder, other: FittedEncoder) -> bool:
    return one.to_bytes() == other.to_bytes()


def test_the_network_has_the_layers_of_its_source():
    module = WindowAutoencoder(generator=torch.Generator().manual_seed(0))
    sizes = [tuple(layer.weight.shape) for layer in [*module.encoder, *module.decoder]]
    assert sizes == [(128, 245), (64, 128), (16, 64), (64, 16), (128, 64), (147, 128)]
    windows = torch.rand(9, 5, 7, 7)
    assert module(windows).shape == (9, 3, 7, 7)
    assert (module.encode(windows) >= 0).all()
    assert (module(windows) < 0).any(), "the last layer is linear"
    torch.testing.assert_close(module(windows), module.decode(module.encode(windows)))


def test_weights_start_glorot_uniform_and_biases_at_zero():
    module = WindowAutoencoder(generator=torch.Generator().manual_seed(0))
    for layer in [*module.encoder, *module.decoder]:
        bound = (6 / sum(layer.weight.shape)) ** 0.5
        assert 0.97 * bound < layer.weight.abs().max() <= bound
        assert abs(layer.weight.std() / (bound / 3**0.5) - 1) < 0.05
        assert not layer.bias.any()


def recipe(
    features: np.ndarray, cells: np.ndarray, start: dict[str, torch.Tensor], edge: str, epochs: int
) -> float:
    """Train as the source says, written plainly: mean loss of the last 10 epochs."""
    _, height, width = features.shape
    low = features.min(axis=(1, 2), keepdims=True)
    span = features.max(axis=(1, 2), keepdims=True) - low
    padded = np.zeros((5, height + 6, width + 6), np.float32)
    if edge == "neutral":
        padded[:3] = (0 - low) / span
    padded[:3, 3:-3, 3:-3] = (features - low) / span
    padded[3] = np.linspace(0, 1, height + 6)[:, None]
    padded[4] = np.linspace(0, 1, width + 6)
    model = nn.Sequential(
        *(nn.Linear(245, 128), nn.ReLU()),
        *(nn.Linear(128, 64), nn.ReLU()),
        *(nn.Linear(64, 16), nn.ReLU()),
        *(nn.Linear(16, 64), nn.ReLU()),
        *(nn.Linear(64, 128), nn.ReLU()),
        nn.Linear(128, 147),
    )
    model.load_state_dict(dict(zip(model.state_dict(), start.values(), strict=True)))
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7)
    history = []
    for epoch in np.split(cells, epochs):
        errors = []
        for first in range(0, len(epoch), 32):
            batch = [padded[:, y : y + 7, x : x + 7] for y, x in epoch[first : first + 32]]
            x = torch.from_numpy(np.stack(batch)).flatten(1)
            error = (model(x) - x[:, :147]) ** 2
            adam.zero_grad()
            error.mean().backward()
            adam.step()
            errors += error.mean(dim=1).tolist()
        history.append(np.mean(errors))
    return float(np.mean(history[-10:]))


@pytest.mark.parametrize("edge", ["neutral", "zero"])
@pytest.mark.parametrize("seed", range(3))
def test_training_is_no_worse_than_the_recipe_written_plainly(edge: str, seed: int):
    """From the same initial weights, on the same windows in the same order."""
    features = towns(80, 90)
    config = EncoderConfig(edge=edge, epochs=24, windows_per_epoch=300, seed=seed)
    training = training_windows(features, config)
    ours = np.mean(train(training, config).loss_history[-10:])
    start = WindowAutoencoder(generator=torch.Generator().manual_seed(seed)).state_dict()
    plain = recipe(features.values, training.cells, start, edge, config.epochs)
    assert ours <= 1.1 * plain
    assert plain < 0.01, "the recipe learns something on this world"


def test_loss_history_has_the_mean_of_every_epoch():
    """One epoch on the whole world in one batch: the loss of the initial weights."""
    features = towns(20, 20)
    config = EncoderConfig(epochs=1, windows_per_epoch=400, batch_size=400, seed=3)
    fitted = train(training_windows(features, config), config)
    raw = features.values
    scaled = (raw - raw.min((1, 2), keepdims=True)) / np.ptp(raw, axis=(1, 2), keepdims=True)
    fill = -raw.min((1, 2)) / np.ptp(raw, axis=(1, 2))
    grid = xr.DataArray(scaled, dims=("channel", "y", "x"))
    cells = np.argwhere(np.ones((20, 20), bool))
    windows = torch.from_numpy(gather_windows(grid, cells, fill=list(fill)))
    ramp = torch.linspace(0, 1, 26).unfold(0, 7, 1)
    row = ramp[cells[:, 0]][:, None, :, None].expand(-1, 1, 7, 7)
    column = ramp[cells[:, 1]][:, None, None, :].expand(-1, 1, 7, 7)
    module = WindowAutoencoder(generator=torch.Generator().manual_seed(3))
    output = module(torch.cat([windows, row, column], dim=1))
    expected = torch.nn.functional.mse_loss(output, windows).item()
    assert fitted.loss_history == pytest.approx([expected], rel=1e-5)


def test_a_seed_fixes_the_weights_whatever_the_threads():
    features = towns(30, 30)
    threads = torch.get_num_threads()
    settings = {"epochs": 3, "windows_per_epoch": 200}
    try:
        torch.set_num_threads(1)
        one = fit_autoencoder(features, seed=5, **settings)
        torch.set_num_threads(2)
        two = fit_autoencoder(features, seed=5, **settings)
        assert torch.get_num_threads() == 2, "what was set returns"
    finally:
        torch.set_num_threads(threads)
    assert same(one, two)
    assert not same(one, fit_autoencoder(features, seed=6, **settings))


@settings(max_examples=6)
@given(chunk_y=st.integers(2, 25), chunk_x=st.integers(2, 25), frames=st.integers(1, 3))
def test_the_fit_is_the_same_under_any_chunking(chunk_y: int, chunk_x: int, frames: int):
    features = xr.concat([towns(21, 25), towns(21, 25, 1)], "time")
    config = EncoderConfig(epochs=2, windows_per_epoch=64)
    chunks = {"time": frames, "channel": 1, "y": chunk_y, "x": chunk_x}
    whole = train(training_windows(features, config), config)
    assert same(whole, train(training_windows(features.chunk(chunks), config), config))


def test_training_runs_as_a_task_on_arrays_that_travel():
    config = EncoderConfig(epochs=2, windows_per_epoch=64)
    training = pickle.loads(pickle.dumps(training_windows(towns(20, 20), config)))
    task = dask.delayed(train)(training, config)
    assert same(task.compute(scheduler="threads"), train(training, config))


def test_each_frame_gets_an_autoencoder_of_its_own():
    """In the original, one object was shared by all frames: a second fit changed the first."""
    first = fit_autoencoder(towns(30, 30, 0), epochs=2, windows_per_epoch=100)
    before = weights(first)
    second = fit_autoencoder(towns(30, 30, 1), epochs=2, windows_per_epoch=100)
    assert first.module is not second.module
    for was, now, other in zip(before, weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(was, now)
        assert not np.array_equal(now, other)


def test_epochs_draw_without_replacement_from_a_small_world():
    config = EncoderConfig(epochs=4, windows_per_epoch=1000)
    fitted = train(training_windows(towns(12, 12), config), config)
    assert len(fitted.loss_history) == 4
    assert fitted.loss_history[-1] < fitted.loss_history[0]


def test_scaling_is_over_all_frames_and_reads_no_data_as_nobody():
    people = np.full((2, 3, 9, 9), 5.0, np.float32)
    people[1, 0] = 25
    people[0, 1, 2, 2] = -3
    people[:, 2] = 7
    features = xr.DataArray(people, dims=("time", "channel", "y", "x"))
    config = EncoderConfig(epochs=1)
    assert training_windows(features, config).scaling == Scaling((5, -3, 7), (25, 5, 7))
    symmetric = training_windows(features, EncoderConfig(epochs=1, symmetric=True)).scaling
    assert symmetric == Scaling((5, 0, 0), (25, 14, 14)), "motion about rest, u and v alike"
    people[0, 0, 4, 4] = np.nan
    training = training_windows(features, config)
    assert training.scaling == Scaling((0, -3, 7), (25, 5, 7))
    assert len(training.cells) == 2 * 81 - 1
    assert [0, 4, 4] not in training.cells.tolist()
    scaled = training.scaling.scale(people)
    assert scaled.min() == 0 and scaled.max() == 1
    assert scaled[0, 0, 4, 4] == 0
    assert not scaled[:, 2].any(), "a constant channel scales to 0"
    np.testing.assert_allclose(training.scaling.restore(scaled)[1], people[1], rtol=1e-6)


@pytest.mark.parametrize("edge", ["neutral", "zero"])
def test_what_lies_beyond_the_edge(edge: str):
    features = towns(20, 20)
    config = EncoderConfig(edge=edge, epochs=1, windows_per_epoch=400)
    training = training_windows(features, config)
    corner = training.windows[(training.cells == 0).all(axis=1)][0]
    beyond = training.scaling.scale(corner)[:, 0, 0]
    nobody = training.scaling.scale(np.zeros((3, 1, 1)))[:, 0, 0]
    np.testing.assert_allclose(beyond, nobody if edge == "neutral" else 0, atol=1e-7)
    assert 0.1 < nobody[1] < 0.9, "no motion lies within the range, 0 at its end"


def test_only_cells_of_the_mask_are_trained_on():
    features = towns(20, 20)
    mask = xr.DataArray(np.zeros((20, 20), bool), dims=("y", "x"))
    mask[5:11, 8:16] = True
    cells = training_windows(features, EncoderConfig(epochs=2), mask=mask).cells
    assert sorted(map(tuple, cells)) == sorted(map(tuple, np.argwhere(mask.values)))


SMALL = {
    "window": 5,
    "hidden": (20, 12, 9),
    "latent": 8,
    "activation": "tanh",
    "latent_activation": "linear",
    "l1": 1e-5,
    "l2": 1e-4,
}


def test_regularisation_makes_weights_small_and_leaves_biases_alone():
    features, settings = towns(30, 40), {"epochs": 20, "windows_per_epoch": 300}
    fits = {name: fit_autoencoder(features, **settings, **{name: 0.01}) for name in ("l1", "l2")}
    fits["none"] = fit_autoencoder(features, **settings)

    def size(name: str, kind: str, power: int) -> float:
        state = fits[name].module.state_dict()
        return sum(float((abs(w) ** power).sum()) for key, w in state.items() if kind in key)

    assert size("l1", "weight", 1) < 0.1 * size("none", "weight", 1)
    assert size("l2", "weight", 2) < 0.1 * size("none", "weight", 2)
    assert min(size(name, "bias", 1) for name in fits) > 0
    assert fits["l2"].loss_history[-1] > fits["none"].loss_history[-1], "the loss of windows alone"


def test_saving_and_loading_gives_identical_codes(tmp_path: Path):
    features = towns(30, 40)
    fitted = fit_autoencoder(features, epochs=2, windows_per_epoch=100, edge="zero", **SMALL)
    fitted.save(tmp_path / "encoder.safetensors")
    codes = encode(features, fitted)
    assert codes.sizes["latent"] == 8
    for again in (
        FittedEncoder.load(tmp_path / "encoder.safetensors"),
        pickle.loads(pickle.dumps(fitted)),
    ):
        np.testing.assert_array_equal(codes, encode(features, again))
        assert again.loss_history == fitted.loss_history
        assert again.scaling == fitted.scaling
        assert (again.config, again.edge) == (fitted.config, "zero")
        assert repr(again) == repr(fitted)
        assert dask.base.tokenize(again) == dask.base.tokenize(fitted)
    assert len(pickle.dumps(fitted)) < 400_000


@pytest.mark.parametrize("symmetric", [True, False])
def test_windows_encode_like_the_raster(symmetric: bool):
    features = towns(30, 40).where(lambda f: f.x != 17)
    fitted = fit_autoencoder(features, epochs=2, windows_per_epoch=100, symmetric=symmetric)
    cells = np.array([[0, 0], [29, 39], [11, 18]])
    windows = gather_windows(features, cells, fill=fitted.fill)
    raster = encode(features, fitted).values[tuple(cells.T)]
    np.testing.assert_allclose(fitted.encode_windows(windows, cells), raster, atol=1e-6)
    middle = reconstruct(features, fitted).transpose("y", "x", "channel").values[tuple(cells.T)]
    np.testing.assert_allclose(fitted.reconstruct_windows(windows, cells), middle, rtol=1e-4)


def test_a_symmetric_encoder_is_trained_on_windows_seen_from_all_sides():
    """Where people live on the left of every window, one that knows north never saw them right."""
    towns = np.tile(np.where(np.arange(60) % 20 < 10, 500, 0), (3, 60, 1)).astype(np.float32)
    features = xr.DataArray(towns, dims=("channel", "y", "x"))
    features[1:] = 0
    cells = xr.DataArray(np.tile(np.arange(60) % 20 == 9, (60, 1)), dims=("y", "x"))
    mirrored, error = features[..., ::-1], {}
    for symmetric in (True, False):
        fitted = fit_autoencoder(
            features, mask=cells, epochs=60, windows_per_epoch=96, symmetric=symmetric
        )
        rebuilt = reconstruct(mirrored, fitted, mask=cells[:, ::-1])[0]
        error[symmetric] = float(abs(rebuilt - mirrored[0])[10:-10].mean())
    assert error[True] < 0.5 * error[False]


@pytest.mark.parametrize("dead", [False, True])
def test_codes_lie_as_far_apart_along_their_axes_as_the_windows_they_stand_for(dead: bool):
    """Where decoding is linear, exactly so, but for one factor: codes vary as standardised ones."""
    linear = {"activation": "linear", "latent_activation": "linear"}
    fitted = FittedEncoder(WindowAutoencoder(**linear), Scaling((0, 0, 0), (1, 1, 1)), 20, 30)
    codes = np.random.default_rng(0).normal(5, np.geomspace(1, 3, 16), (900, 16))
    codes[:, 3] = 0.1 if dead else codes[:, 3]
    windows = fitted.module.decode(torch.from_numpy(codes).float()).detach().flatten(1).numpy()
    points = (codes - codes.mean(0)) @ fitted.window_axes(codes)
    apart = [np.linalg.norm(a[1:] - a[:-1], axis=1) for a in (points, windows.astype(float))]
    np.testing.assert_allclose(apart[0] / apart[1], np.mean(apart[0] / apart[1]), rtol=1e-4)
    assert points.var(axis=0).sum() == pytest.approx(15 if dead else 16, rel=1e-5)


def test_rounding_of_codes_moves_no_point():
    """Two numbers of a code that say the same but for rounding are one direction, not two."""
    linear = {"activation": "linear", "latent_activation": "linear"}
    fitted = FittedEncoder(WindowAutoencoder(**linear), Scaling((0, 0, 0), (1, 1, 1)), 20, 30)
    rng = np.random.default_rng(0)
    codes = rng.normal(0, 1, (900, 16))
    codes[:, 1] = 3 * codes[:, 0]
    rounded = codes + rng.normal(0, 3e-7, codes.shape)
    axes = fitted.window_axes(rounded)
    assert np.abs((rounded - codes) @ axes).max() < 1e-4


def test_codes_that_are_all_alike_have_axes():
    fitted = fit_autoencoder(towns(20, 20), epochs=1)
    assert np.isfinite(fitted.window_axes(np.ones((40, 16), np.float32))).all()


def test_an_encoder_stored_before_there_were_symmetric_ones_is_not_symmetric():
    fitted = fit_autoencoder(towns(20, 20), epochs=1)
    weights, state = unpack(fitted.to_bytes(), HEADER)
    del state["config"]["symmetric"]
    again = FittedEncoder.from_bytes(pack(weights, HEADER, state))
    assert again.config == fitted.config and not again.symmetric
    np.testing.assert_array_equal(encode(towns(20, 20), again), encode(towns(20, 20), fitted))


def test_a_symmetric_encoder_wants_people_and_motion():
    with pytest.raises(InputError, match=r"2 channels, expected people, u and v.*symmetric=False"):
        fit_autoencoder(towns(20, 20)[:2], symmetric=True)
    assert fit_autoencoder(towns(20, 20)[:2], epochs=1).module.channels == 2


@pytest.mark.parametrize("damage", ["text", "short", "foreign", "weights"])
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, damage: str):
    from safetensors.torch import save

    fitted = fit_autoencoder(towns(20, 20), epochs=1)
    data = {
        "text": b"population = 5",
        "short": fitted.to_bytes()[:-4],
        "foreign": save({"weight": torch.zeros(3)}, {"format": "pt"}),
        "weights": fitted.to_bytes().replace(b"encoder.0.weight", b"encoder.9.weight"),
    }[damage]
    (tmp_path / "wrong.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"wrong\.safetensors is not an encoder"):
        FittedEncoder.load(tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match="missing"):
        FittedEncoder.load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"edge": "mirror"}, "edge is 'mirror'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 500}, "400 cells"),
        ({"window": 8}, "window is 8, expected an odd number"),
        ({"window": 1}, "window is 1, expected"),
        ({"window": 7.0}, "window is 7.0, expected"),
        ({"hidden": ()}, "hidden is .*at least one layer"),
        ({"hidden": (32, 0)}, "hidden is .*32, 0"),
        ({"latent": True}, "latent is True"),
        ({"activation": "swish"}, "activation is 'swish', expected one of relu"),
        ({"l2": -1.0}, "l2 is -1.0"),
        ({"l1": float("nan")}, "l1 is nan"),
        ({"device": "cuda:7"}, "device"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(settings: dict, word: str):
    if torch.cuda.is_available() and "device" in settings:
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match=word):
        fit_autoencoder(towns(20, 20), **settings)


def test_wrong_cells_are_refused_in_a_sentence():
    features = towns(20, 20)
    nowhere = xr.zeros_like(features[0], dtype=bool)
    with pytest.raises(InputError, match="0 cells"):
        fit_autoencoder(features, mask=nowhere)
    with pytest.raises(InputError, match="expected bool"):
        fit_autoencoder(features, mask=nowhere.astype(int))
    with pytest.raises(InputError, match="grid"):
        fit_autoencoder(features, mask=xr.DataArray(np.ones((9, 4, 5), bool), dims=("t", "b", "c")))
    with pytest.raises(InputError, match="finite"):
        fit_autoencoder(features.where(features.y != 3, np.inf))


def two_towns() -> tuple[xr.DataArray, xr.DataArray]:
    """A large round town and a small one, far apart in empty land, at rest: features, people."""
    y, x = np.mgrid[:60, :70]
    people = np.zeros((60, 70), np.float32)
    for row, column, most, size in ((20, 18, 800, 5), (42, 52, 400, 4)):
        people += most * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * size**2))
    population = xr.DataArray(np.floor(people), dims=("y", "x"))
    still = xr.zeros_like(population)
    return stack_features(population, xr.Dataset({"u": still, "v": still})), population


def test_a_known_world_comes_back_from_its_codes():
    """People come back; the centres of two towns are unlike each other and unlike empty land."""
    features, population = two_towns()
    fitted = fit_autoencoder(features, epochs=60)
    again = reconstruct(features, fitted).isel(channel=0)
    most = float(population.max())
    assert np.abs(again - population).max() < 0.1 * most, "nowhere is a tenth of the peak missed"
    assert np.abs(again - population).mean() < 0.01 * most
    assert float(again.sum()) == pytest.approx(float(population.sum()), rel=0.05)
    codes = encode(features, fitted)
    large, small, empty, elsewhere = (
        codes[cell].values for cell in ((20, 18), (42, 52), (5, 60), (50, 10))
    )
    noise = np.linalg.norm(empty - elsewhere)
    for one, other in ((large, small), (large, empty), (small, empty)):
        assert np.linalg.norm(one - other) > 10 * noise, "place alone makes no such difference"


def test_training_reads_the_raster_in_two_passes_and_each_block_once_in_each():
    """For the range, the cells and their windows; the windows' pass skips blocks without cells."""
    reads: Counter[tuple] = Counter()
    passes = []

    def noted(block: np.ndarray, block_info: dict) -> np.ndarray:
        reads[tuple(block_info[0]["chunk-location"])] += 1
        return block

    def counting(graph: object, keys: object, **options: object) -> object:
        reads.clear()
        found = dask.get(graph, keys, **options)
        passes.append(dict(reads))
        return found

    features = towns(40, 60).chunk({"y": 10, "x": 15})
    watched = features.copy(
        data=features.data.map_blocks(noted, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))
    )
    mask = xr.zeros_like(features[0], dtype=bool).compute()
    mask[:20, :30] = True
    with dask.config.set(scheduler=counting):
        fit_autoencoder(watched, mask=mask, epochs=1, windows_per_epoch=100)
    every = dict.fromkeys(product([0], range(4), range(4)), 1)
    at_the_mask = dict.fromkeys(product([0], range(3), range(3)), 1)  # and what it borrows from
    assert passes == [every, at_the_mask]


@pytest.mark.skipif(not OSLO.exists(), reason="POPDASK_DATA has no oslo_250m")
def test_oslo_is_learnt_as_well_as_by_the_original_recipe():
    import rasterio

    from popdask.tracking.flow import optical_flow

    frames = []
    for year in (2018, 2019):
        with rasterio.open(OSLO / f"oslo_pop_250m_{year}.tif") as file:
            frames.append(file.read(1).astype(np.float32))
    population = xr.DataArray(da.from_array(np.stack(frames), chunks=(1, 100, 100)))
    population = population.rename(dict(zip(population.dims, ("time", "y", "x"), strict=True)))
    population["time"] = np.array(["2018", "2019"], "datetime64[ns]")
    features = stack_features(population, optical_flow(population)).isel(time=1)
    fitted = fit_autoencoder(features)
    assert np.mean(fitted.loss_history[-10:]) == pytest.approx(4.4e-4, rel=0.3)
