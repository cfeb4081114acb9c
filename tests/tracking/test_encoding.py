import os
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler

from popdask.errors import InputError
from popdask.tracking import TILE
from popdask.tracking.autoencoder import (
    EncoderConfig,
    FittedEncoder,
    Scaling,
    fit_autoencoder,
)
from popdask.tracking.encoding import encode, lattice_chunks, reconstruct, stack_features
from popdask.tracking.flow import optical_flow

DATA = Path(os.environ.get("POPDASK_DATA") or "/nonexistent")
OSLO = DATA / "oslo_250m"
FRAMES = ("time", "channel", "y", "x")


def noise(*shape: int, holes: float = 0.0, seed: int = 0) -> xr.DataArray:
    """Raw features (…, channel, y, x) without any structure, some cells without data."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(0, 30, shape).astype(np.float32)
    people = rng.integers(0, 900, (*shape[:-3], *shape[-2:])).astype(np.float32)
    people[rng.random(people.shape) < holes] = np.nan
    raw[..., 0, :, :] = people
    return xr.DataArray(raw, dims=FRAMES[4 - len(shape) :])


def random_encoder(features: xr.DataArray, seed: int = 0, **settings) -> FittedEncoder:
    """An encoder with random weights and biases: what it means does not matter here."""
    generator, config = torch.Generator().manual_seed(seed), EncoderConfig(**settings)
    module = config.network(3, generator)
    for layer in [*module.encoder, *module.decoder]:
        layer.bias.data.uniform_(-0.3, 0.3, generator=generator)
    over = [dim for dim in features.dims if dim != "channel"]
    filled = features.fillna(0)
    scaling = Scaling(*(tuple(f(over).values.tolist()) for f in (filled.min, filled.max)))
    size = (features.sizes["y"], features.sizes["x"])
    scaling = scaling.about_rest() if config.symmetric else scaling
    return FittedEncoder(module, scaling, *size, config)


ACTIVATIONS = {
    "relu": lambda h: np.maximum(h, 0),
    "leaky_relu": lambda h: np.where(h > 0, h, 0.01 * h),
    "elu": lambda h: np.where(h > 0, h, np.expm1(h)),
    "tanh": np.tanh,
    "sigmoid": lambda h: 1 / (1 + np.exp(-h)),
    "linear": lambda h: h,
}


def turned(frame: np.ndarray, quarters: int, mirrored: bool) -> np.ndarray:
    """Turn a frame of people, u and v to the left by quarters, then mirror it left to right."""
    for _ in range(quarters):
        people, u, v = np.rot90(frame, axes=(1, 2))
        frame = np.stack([people, v, -u])  # what went down (v) now goes right, what went right up
    return frame[..., ::-1] * np.array([1, -1, 1])[:, None, None] if mirrored else frame


def turned_back(values: np.ndarray, quarters: int, mirrored: bool) -> np.ndarray:
    """Lay what was found of a turned frame, (y, x, ...), on the frame as it was."""
    return np.rot90(values[:, ::-1] if mirrored else values, -quarters)


TURNS = [(quarters, mirrored) for quarters in range(4) for mirrored in (False, True)]


def plain(features: np.ndarray, encoder: FittedEncoder) -> tuple[np.ndarray, np.ndarray]:
    """Codes and reconstructed middles; of a symmetric encoder the mean over the turned frames."""
    code, middle = plain_layers(features, encoder)
    if encoder.symmetric:
        every = [turned_back(plain_layers(turned(features, *t), encoder)[0], *t) for t in TURNS]
        code = np.mean(every, axis=0)
    return code, middle


def plain_layers(features: np.ndarray, encoder: FittedEncoder) -> tuple[np.ndarray, np.ndarray]:
    """Dense layers on windows of one frame, by NumPy: codes and reconstructed middles."""
    _, height, width = features.shape
    low = np.array(encoder.scaling.minimum)[:, None, None]
    span = np.array(encoder.scaling.maximum)[:, None, None] - low
    beyond = np.broadcast_to(-low / span if encoder.edge == "neutral" else 0.0, low.shape)
    size, half, layers = encoder.window, encoder.window // 2, len(encoder.config.hidden) + 1
    padded = np.tile(beyond, (1, height + size - 1, width + size - 1))
    padded[:, half:-half, half:-half] = (np.nan_to_num(features) - low) / span
    row, column = (np.linspace(0, 1, n + size - 1) for n in (height, width))
    positions = np.stack(np.broadcast_arrays(row[:, None], column))
    full = padded if encoder.symmetric else np.concatenate([padded, positions])
    windows = np.lib.stride_tricks.sliding_window_view(full, (size, size), axis=(1, 2))
    h = np.moveaxis(windows, 0, 2).reshape(height, width, -1)
    weights = {k: w.double().numpy() for k, w in encoder.module.state_dict().items()}
    inner, code_of = (
        ACTIVATIONS[name] for name in (encoder.config.activation, encoder.config.latent_activation)
    )
    for i in range(layers):
        h = h @ weights[f"encoder.{i}.weight"].T + weights[f"encoder.{i}.bias"]
        h = inner(h) if i < layers - 1 else code_of(h)
    code = h
    for i in range(layers):
        h = h @ weights[f"decoder.{i}.weight"].T + weights[f"decoder.{i}.bias"]
        h = inner(h) if i < layers - 1 else h
    middle = np.moveaxis(h.reshape(height, width, 3, size, size)[..., half, half], -1, 0)
    return code, middle * span + low


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("edge", ["neutral", "zero"])
@pytest.mark.parametrize("shape", [(40, 37), (5, 150), (140, 2), (1, 1)])
def test_encode_is_dense_layers_on_every_window(edge: str, shape: tuple[int, int], symmetric: bool):
    features = noise(2, 3, *shape, holes=0.1 if shape[0] > 1 else 0)
    encoder = random_encoder(features, edge=edge, symmetric=symmetric)
    latent = encode(features, encoder)
    middle = reconstruct(features, encoder)
    assert latent.dims == ("time", "y", "x", "latent")
    assert middle.dims == features.dims
    assert latent.dtype == middle.dtype == np.float32
    for t in range(2):
        data = ~np.isnan(features.values[t, 0])
        code, decoded = plain(features.values[t], encoder)
        for ours, theirs in ((latent[t].values, code), (middle[t].values.transpose(1, 2, 0), None)):
            theirs = decoded.transpose(1, 2, 0) if theirs is None else theirs
            assert np.isnan(ours[~data]).all()
            np.testing.assert_allclose(ours[data], theirs[data], atol=1e-5 * np.ptp(theirs))


@pytest.mark.parametrize(("quarters", "mirrored"), TURNS[1:])
def test_a_turned_or_mirrored_raster_has_the_same_codes_in_other_places(quarters, mirrored):
    """From the people on, by way of their flow; a code that knows where north is has others."""
    rng = np.random.default_rng(3)
    people = np.floor(rng.gamma(0.4, 200, (2, 40, 40))).astype(np.float32)
    people[:, 5:8, 30:] = np.nan
    other = np.rot90(people, quarters, axes=(1, 2))
    other = other[..., ::-1] if mirrored else other

    def features(cube: np.ndarray) -> xr.DataArray:
        times = {"time": np.array(["2001", "2002"], "M8[ns]")}
        population = xr.DataArray(cube.copy(), times, ("time", "y", "x"))
        return stack_features(population, optical_flow(population)).compute()

    one, two = features(people), features(other)
    apart = {}
    for symmetric in (True, False):
        encoder = random_encoder(one, symmetric=symmetric)
        here, there = encode(one, encoder)[0].values, encode(two, encoder)[0].values
        there, scale = turned_back(there, quarters, mirrored), np.nanstd(here)
        np.testing.assert_array_equal(np.isnan(here), np.isnan(there))
        apart[symmetric] = np.nanmax(abs(here - there)) / scale
    assert apart[True] < 1e-4, "but for rounding"
    assert apart[False] > 0.5


def test_one_frame_encodes_like_a_frame_of_many():
    features = noise(2, 3, 20, 30)
    encoder = random_encoder(features)
    latent = encode(features, encoder)
    one = encode(features[1].transpose("y", "channel", "x"), encoder)
    assert one.dims == ("y", "x", "latent")
    np.testing.assert_array_equal(one, latent[1])


WORLD = noise(2, 3, 141, 260, holes=0.05)
ENCODER = random_encoder(WORLD)
MASK = xr.DataArray(np.random.default_rng(1).random((2, 141, 260)) < 0.001, dims=("time", "y", "x"))
MASK[0, 60:80, 100:190] = True
LATENT = encode(WORLD, ENCODER).values


def cuts(length: int, least: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Ragged chunk sizes along an axis."""
    borders = st.sets(st.integers(1, length - 1), max_size=length // least)
    return borders.map(lambda inner: tuple(np.diff([0, *sorted(inner), length]).tolist()))


@settings(max_examples=12)
@given(y=cuts(141, 20), x=cuts(260, 40), t=cuts(2, 1), channel=cuts(3, 1))
def test_codes_are_the_same_bits_under_any_chunking(y, x, t, channel):
    """Chunks of one cell and chunks thinner than the halo included."""
    features = WORLD.chunk(dict(zip(FRAMES, (t, channel, y, x), strict=True)))
    np.testing.assert_array_equal(encode(features, ENCODER), LATENT)
    masked = encode(features, ENCODER, mask=MASK.chunk({"y": 31, "x": 77}))
    np.testing.assert_array_equal(masked, np.where(MASK.values[..., None], LATENT, np.nan))


def test_reconstruction_is_the_same_bits_under_any_chunking():
    whole = reconstruct(WORLD, ENCODER)
    np.testing.assert_array_equal(reconstruct(WORLD.chunk({"y": 9, "x": 50}), ENCODER), whole)


@settings(max_examples=10)
@given(
    window=st.sampled_from([3, 5, 7, 9, 11]),
    hidden=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    latent=st.integers(1, 20),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    latent_activation=st.sampled_from(sorted(ACTIVATIONS)),
    edge=st.sampled_from(["neutral", "zero"]),
    symmetric=st.booleans(),
    y=cuts(140, 20),
    x=cuts(135, 20),
    seed=st.integers(0, 9),
)
def test_any_architecture_encodes_like_dense_layers_in_any_chunks(y, x, seed, **architecture):
    features = noise(3, 140, 135, holes=0.1, seed=seed)
    encoder = random_encoder(features, seed, **architecture)
    latent, middle = encode(features, encoder), reconstruct(features, encoder)
    chunked = features.chunk({"y": y, "x": x})
    np.testing.assert_array_equal(encode(chunked, encoder), latent)
    np.testing.assert_array_equal(reconstruct(chunked, encoder), middle)
    data = features[0].notnull().values
    code, decoded = plain(features.values, encoder)
    for ours, theirs in ((latent, code), (middle, decoded)):
        ours = ours.transpose("y", "x", ...).values[data]
        theirs = theirs[data] if theirs is code else theirs.transpose(1, 2, 0)[data]
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * (1 + np.abs(theirs).max()))


@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=8),
    tile=st.integers(15, 130),
    most=st.integers(1, 4),
    halo=st.integers(1, 15),
)
def test_chunks_start_on_the_lattice_and_can_lend_a_halo(sizes, tile, most, halo):
    chunks = lattice_chunks(sizes, halo, tile, most)
    assert sum(chunks) == sum(sizes)
    assert all(chunk % tile == 0 for chunk in chunks[:-1])
    assert len(chunks) == 1 or min(chunks) >= halo
    assert max(chunks) < most * tile + halo


def test_chunks_on_the_lattice_stay():
    assert lattice_chunks((2 * TILE, 3 * TILE, 50), 3) == (2 * TILE, 3 * TILE, 50)
    assert lattice_chunks((3000,), 3) == (1024, 1024, 952)


def test_only_cells_in_the_mask_with_data_are_encoded():
    features = noise(3, 40, 50, holes=0.2)
    mask = xr.DataArray(np.random.default_rng(2).random((40, 50)) < 0.5, dims=("y", "x"))
    latent = encode(features, random_encoder(features), mask=mask).values
    expected = mask.values & ~np.isnan(features.values[0])
    np.testing.assert_array_equal(np.isfinite(latent).all(axis=-1), expected)
    np.testing.assert_array_equal(np.isnan(latent).all(axis=-1), ~expected)


def refuse(block: np.ndarray) -> np.ndarray:
    raise AssertionError("a block was read")


def test_building_the_graph_reads_nothing_and_holds_the_encoder_once():
    unread = da.zeros((2, 300, 300), chunks=(1, 50, 50), dtype=np.float32).map_blocks(
        refuse, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
    )
    population = xr.DataArray(unread, dims=("time", "y", "x"))
    features = stack_features(population, xr.Dataset({"u": population, "v": population}))
    encoder = random_encoder(noise(3, 300, 300))
    latent = encode(features, encoder, mask=population > 0)
    decoded = reconstruct(features, encoder)
    assert latent.chunks == ((1, 1), (128, 128, 44), (128, 128, 44), (16,))
    assert decoded.chunks == ((1, 1), (3,), (128, 128, 44), (128, 128, 44))
    holders = [key for key in latent.__dask_graph__() if str(key).startswith("FittedEncoder")]
    assert len(holders) == 1
    with pytest.raises(AssertionError, match="a block was read"):
        latent.compute(scheduler="sync")


def test_zero_padding_makes_a_class_of_its_own_along_the_border_and_neutral_does_not():
    """One town that grows outwards: no motion scales to 0.5, so 0 reads as extreme motion."""
    y, x = np.mgrid[:64, :64] - 31.5
    town = np.exp(-(y**2 + x**2) / (2 * 8**2))
    raw = np.stack([900 * town, x * town, y * town]).astype(np.float32)
    features = xr.DataArray(raw, dims=FRAMES[1:])
    border = np.ones((64, 64), bool)
    border[3:-3, 3:-3] = False
    purest = {}
    for edge in ("neutral", "zero"):
        fitted = fit_autoencoder(features, edge=edge, epochs=12, windows_per_epoch=400)
        codes = StandardScaler().fit_transform(encode(features, fitted).values.reshape(-1, 16))
        classes = KMeans(6, n_init=3, random_state=0).fit_predict(codes).reshape(64, 64)
        of_size = [classes == c for c in range(6) if (classes == c).sum() > 50]
        purest[edge] = max(border[cells].mean() for cells in of_size)
    assert purest["zero"] > 0.9, "a class that lies along the border alone"
    assert purest["neutral"] < 0.5


def test_features_are_three_channels_clipped_from_above():
    rng = np.random.default_rng(0)
    people = rng.gamma(0.5, 900, (2, 30, 40))
    people[0, 3, 4] = np.nan
    motion = rng.normal(0, 900, (2, 2, 30, 40))
    population = xr.DataArray(
        people, {"time": [2018, 2019], "x": np.arange(40.0)}, ("time", "y", "x")
    )
    flow = xr.Dataset({n: (("time", "y", "x"), m) for n, m in zip("uv", motion, strict=True)})
    expected = np.minimum(np.stack([people, *motion], axis=1), 800).astype(np.float32)
    for features in (
        stack_features(population, flow, clip=800),
        stack_features(population.chunk({"y": 7}), flow.chunk({"x": 9}), clip=800),
    ):
        assert features.dims == FRAMES
        assert features.dtype == np.float32
        assert features.chunksizes["channel"] == (3,)
        assert features.channel.values.tolist() == ["population", "u", "v"]
        assert features.time.values.tolist() == [2018, 2019]
        np.testing.assert_array_equal(features, expected)
    assert np.nanmin(features.values) < -800, "only the top is clipped"


def test_what_does_not_fit_is_refused_in_a_sentence():
    features = noise(3, 20, 30)
    encoder = random_encoder(features)
    with pytest.raises(InputError, match="fit one on this grid"):
        encode(features[:, :-1], encoder)
    with pytest.raises(InputError, match="mask"):
        encode(features, encoder, mask=xr.DataArray(np.ones((3, 30), bool), dims=("z", "x")))
    flow = xr.Dataset({"u": features[1], "v": features[2]})
    with pytest.raises(InputError, match="population's grid"):
        stack_features(features[0, 1:], flow)
    with pytest.raises(InputError, match="clip"):
        stack_features(features[0], flow, clip=0)


@pytest.mark.skipif(not OSLO.exists(), reason="POPDASK_DATA has no oslo_250m")
def test_oslo_has_a_code_in_every_cell_the_same_in_any_chunks():
    import rasterio

    with rasterio.open(OSLO / "oslo_pop_250m_2019.tif") as file:
        people = xr.DataArray(file.read(1).astype(np.float32), dims=("y", "x"))
    still = xr.zeros_like(people)
    features = stack_features(people, xr.Dataset({"u": still, "v": still}))
    encoder = fit_autoencoder(features, epochs=5)
    latent = encode(features, encoder).values
    assert np.isfinite(latent).all()
    np.testing.assert_array_equal(encode(features.chunk({"y": 90, "x": 170}), encoder), latent)
