"""Training learns what can be known, is the same every time, and outlives stops."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
from dask.base import tokenize
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn
from xarray import DataArray

from popdask.errors import InputError
from popdask.imagery.cells import (
    make_cells,
    open_cells,
    set_aside,
    split_cells,
    split_fingerprint,
    write_cells,
)
from popdask.imagery.grid import CellGrid
from popdask.imagery.loading import (
    Augmentation,
    CellImages,
    GateWarning,
    TrainingConfig,
    choose_cells,
    draw_shares,
    predict_cells,
)
from popdask.imagery.model import LeakageWarning, TrainedModel, build
from popdask.imagery.networks import CountCNN, PresenceCNN
from popdask.imagery.trainer import (
    BatchHalvedWarning,
    Checkpoint,
    StaleCheckpointError,
    StaleCheckpointWarning,
)
from popdask.imagery.training import Progress, train

FORKS = multiprocessing.get_context("forkserver")
SMALL_PRESENCE = {"widths": (4, 8), "hidden": (8,), "pool": 2, "dropout": 0.1}
SMALL_COUNT = {"blocks": 2, "base": 8, "hidden": 16, "dropout": 0.05}
SMALL_VIT = {"patch": 4, "width": 24, "layers": 1, "heads": 2, "dropout": 0.0}
NETWORKS = {
    "presence": SMALL_PRESENCE,
    "count": SMALL_COUNT,
    "transformer": SMALL_VIT,
    "weighted": SMALL_COUNT,
}


def small(kind="presence", **changes):
    basis = TrainingConfig(NETWORKS[kind], epochs=3, batch_size=8, rate=3e-3, threads=1)
    return replace(basis, **changes)


def houses(n=96, pixels=16, seed=0, bands=1):
    """Cells with up to four bright houses of 4 x 4 pixels, and five people in each house."""
    rng = np.random.default_rng(seed)
    images = rng.integers(40, 70, (n, bands, pixels, pixels)).astype(np.uint8)
    people = np.zeros(n)
    for i in range(n):
        built = rng.permutation(4)[: rng.integers(0, 5) if rng.random() < 0.7 else 0]
        for row, col in zip(built // 2, built % 2, strict=True):
            images[i, :, 8 * row + 2 : 8 * row + 6, 8 * col + 2 : 8 * col + 6] = 220
        people[i] = 5 * len(built)
    return images, people


def cells_of(images, people, seed=0, **attrs):
    north, east = np.divmod(np.arange(len(people)), 20)
    grid = CellGrid(100)
    cells = make_cells(da.asarray(images), people, north + 61000, east + 6700, grid)
    return split_cells(cells.assign_attrs(attrs), kind="random", seed=seed)


@pytest.fixture(scope="module")
def cells():
    return cells_of(*houses())


def weights_of(model):
    return {name: tensor.numpy() for name, tensor in model.module.state_dict().items()}


def assert_same_model(one, other):
    assert tokenize(one) == tokenize(other)


@pytest.mark.parametrize(
    ("kind", "config", "figure", "least"),
    [
        ("presence", small("presence", epochs=8), "matthews", 0.9),
        ("count", small("count", epochs=30, rate=1e-2), "r2", 0.8),
        ("transformer", small("transformer", epochs=40, rate=1e-2, balance=1.0), "r2", 0.8),
        ("weighted", small("weighted", epochs=20, rate=1e-2, balance=0.5), "r2", 0.8),
    ],
)
def test_each_kind_learns_a_world_that_can_be_known(kind, config, figure, least):
    model = train(cells_of(*houses(200)), kind, config, device="cpu")
    assert model.figures[figure] > least
    losses = [row["training"] for row in model.history]
    assert losses[-1] < losses[0]
    assert model.kind == kind


@pytest.mark.parametrize("kind", ["count", "weighted"])
def test_people_of_the_training_cells_add_up(cells, kind):
    model = train(cells, kind, small(kind, epochs=4), device="cpu")
    learned = cells.isel(cell=np.flatnonzero(cells.split == 0))
    if kind == "count":
        learned = learned.isel(cell=np.flatnonzero(learned.people > 0))
    said = model.predict(learned.images.values).astype(float)
    assert said.sum() == pytest.approx(float(learned.people.sum()), rel=1e-5)
    assert model.figures["scale"] != 1


@pytest.mark.parametrize("scale", [0.01, 1.0, 1000.0])
def test_counts_of_any_size_are_learned_as_fast(cells, scale):
    """What is learned of people is learned of thousands of people, up to rounding."""
    config = small("count", epochs=12, weight_decay=0.0)
    plain = train(cells, "count", config, device="cpu")
    scaled = train(cells.assign(people=cells.people * scale), "count", config, device="cpu")
    assert scaled.figures["r2"] == pytest.approx(plain.figures["r2"], abs=0.15)
    assert plain.figures["r2"] > 0.5


def test_scored_cells_change_nothing_but_the_scores(cells):
    """With cells set aside, the validation cells' people could be anything."""
    inner = set_aside(cells)
    people = inner.people.where(inner.split != 1, inner.people[::-1].values)
    for kind in ("presence", "count"):
        plain = train(inner, kind, small(kind), device="cpu")
        other = train(inner.assign(people=people), kind, small(kind), device="cpu")
        for name, weights in weights_of(plain).items():
            np.testing.assert_array_equal(weights, weights_of(other)[name])
        assert plain.history == other.history
        assert plain.figures != other.figures
    authors = train(cells, "presence", small(), device="cpu")
    other = train(cells.assign(people=people), "presence", small(), device="cpu")
    assert authors.history != other.history  # the first work's protocol


def test_what_an_epoch_is_chosen_by_counts_as_seen(cells):
    inner = set_aside(cells)
    model = train(inner, "presence", small(epochs=1), device="cpu")
    seen = inner.isel(cell=np.flatnonzero(inner.split.isin((0, 2))))
    known = {(n, e) for n, e in model.training_cells.tolist()}
    assert known == set(zip(seen.north.values, seen.east.values, strict=True))


def test_the_best_weights_are_kept_with_all_they_depend_on(cells):
    model = train(cells, "presence", small(epochs=6), device="cpu")
    best = min(model.history, key=lambda row: row["validation"])
    assert model.figures["epoch"] == best["epoch"]
    assert model.figures["loss"] == best["validation"]
    validation = np.flatnonzero(cells.split == 1)
    p = model.predict(cells.images.values[validation]).astype(float)
    inhabited = cells.people.values[validation] > 0
    loss = -np.mean(np.where(inhabited, np.log(p), np.log1p(-p)))
    assert loss == pytest.approx(best["validation"], rel=1e-4)
    assert model.figures["accuracy"] == np.mean((p > 0.5) == inhabited)
    assert model.split == split_fingerprint(cells)
    known = {(n, e) for n, e in model.training_cells.tolist()}
    training = cells.isel(cell=np.flatnonzero(cells.split == 0))
    assert known == set(zip(training.north.values, training.east.values, strict=True))
    assert (model.cell_size, model.resolution, model.context) == (100.0, 100 / 16, 0)
    assert model.settings["rate"] == 3e-3
    assert model.settings["threads"] == 1


@pytest.mark.parametrize("kind", ["presence", "count"])
def test_the_same_seed_gives_the_same_weights(cells, kind):
    torch.manual_seed(1)
    one = train(cells, kind, small(kind), device="cpu")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    assert_same_model(one, train(cells, kind, small(kind), device="cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    other = weights_of(train(cells, kind, small(kind, seed=1), device="cpu"))
    assert any((weights_of(one)[name] != other[name]).any() for name in other)


UNLIMITED = """
import sys
import torch
from dask.base import tokenize
sys.path.insert(0, {root!r})
from tests.imagery.training.test_learning import cells_of, houses, small
from popdask.imagery.training import train

torch.set_num_threads(2)
images, people = houses()
model = train(cells_of(images, people), "count", small("count"), device="cpu")
assert torch.get_num_threads() == 2
print(tokenize(model), tokenize(model.predict(images)))
"""


def test_threads_that_a_process_may_have_change_nothing(cells):
    """The tests have one thread by the environment; a process without that comes to the same."""
    script = UNLIMITED.format(root=str(Path(__file__).parents[3]))
    free = {name: text for name, text in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", script], env=free, capture_output=True, text=True)
    model = train(cells, "count", small("count"), device="cpu")
    said = model.predict(houses()[0])
    assert done.stdout.split() == [tokenize(model), tokenize(said)], done.stderr


@pytest.mark.parametrize("chunks", [1, 7, 96])
def test_the_chunks_of_the_store_do_not_matter(cells, chunks):
    in_memory = cells.compute()
    chunked = cells.chunk(cell=chunks)
    for memory in (2**31, 2 * 2 * 64 * 256):  # all, and one run of 64 cells at a time
        config = small(memory=memory, epochs=2)
        one = train(chunked, "presence", config, device="cpu")
        assert_same_model(one, train(cells.chunk(cell=13), "presence", config, device="cpu"))
    config = small(epochs=2)
    one = train(chunked, "presence", config, device="cpu")
    assert_same_model(one, train(in_memory, "presence", config, device="cpu"))


def test_training_reads_from_a_store(cells, tmp_path):
    write_cells(cells, tmp_path / "cells.zarr")
    config = small(epochs=2, memory=2 * 2 * 64 * 256)
    stored = train(open_cells(tmp_path / "cells.zarr"), "presence", config, device="cpu")
    assert_same_model(stored, train(cells.chunk(cell=50), "presence", config, device="cpu"))


@settings(max_examples=20)
@given(
    n=st.integers(1, 400),
    chunk=st.integers(1, 400),
    runs=st.integers(1, 8),
    drawn=st.integers(1, 500),
    shuffled=st.booleans(),
)
def test_every_cell_comes_as_often_as_it_is_drawn(n, chunk, runs, drawn, shuffled):
    rng = np.random.default_rng(n)
    values = np.arange(2 * n, dtype=np.int64).reshape(-1, 1, 1, 1)
    images = DataArray(da.from_array(values, chunks=chunk), dims=("cell", "band", "row", "col"))
    chosen = np.sort(rng.permutation(2 * n)[:n])
    loader = CellImages(images, chosen, memory=2 * runs * 64 * 8)
    order = rng.integers(0, n, drawn)
    portions = list(loader.portions(order, rng if shuffled else None))
    asked = np.concatenate([portion.cells for portion in portions])
    np.testing.assert_array_equal(np.sort(asked), np.sort(order))
    for portion in portions:
        np.testing.assert_array_equal(portion.images[portion.picks].ravel(), chosen[portion.cells])
        if loader.held is None:
            assert len(portion.images) <= runs * 64


def train_until(epoch, config, path):
    """Train in a process that is killed once an epoch is over."""

    def stop(progress):
        if progress.epoch == epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    train(
        cells_of(*houses()).chunk(cell=9),
        "count",
        config,
        checkpoint=path,
        progress=stop,
        device="cpu",
    )


def test_a_killed_training_goes_on_to_the_same_result(tmp_path):
    epoch, path = 3, str(tmp_path / "state")
    config = small("count", epochs=5, memory=2 * 2 * 64 * 256, balance=0.5)
    killed = FORKS.Process(target=train_until, args=(epoch, config, path))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    world = cells_of(*houses()).chunk(cell=9)
    told = []
    resumed = train(world, "count", config, checkpoint=path, progress=told.append, device="cpu")
    assert [progress.epoch for progress in told] == list(range(epoch + 1, 6))
    assert_same_model(resumed, train(world, "count", config, device="cpu"))
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_a_finished_training_is_not_done_again(cells, tmp_path):
    path = tmp_path / "state"
    one = train(cells, "presence", small(), checkpoint=path, device="cpu")
    told = []
    again = train(cells, "presence", small(), checkpoint=path, progress=told.append, device="cpu")
    assert told == []
    assert_same_model(one, again)
    longer = train(cells, "presence", small(epochs=5), checkpoint=path, device="cpu")
    assert_same_model(longer, train(cells, "presence", small(epochs=5), device="cpu"))


def test_a_checkpoint_of_another_training_is_refused_and_left(cells, tmp_path):
    path = tmp_path / "state"
    train(cells, "presence", small(epochs=1), checkpoint=path, device="cpu")
    before = path.read_bytes()
    with pytest.raises(InputError, match="state of another training"):
        train(cells, "presence", small(rate=1e-5), checkpoint=path, device="cpu")
    with pytest.raises(InputError, match="state of another training"):
        other = cells.assign(people=cells.people * 2)
        train(other, "presence", small(), checkpoint=path, device="cpu")
    assert path.read_bytes() == before
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match="is not the state of a training"):
        Checkpoint.load(path, "any")


def test_a_checkpoint_knows_what_its_caller_says_of_the_images(cells, tmp_path):
    """The same places and people with other pixels are another training, if one says so."""
    path = tmp_path / "state"
    train(cells, "presence", small(epochs=1), checkpoint=path, identity="2019", device="cpu")
    renewed = cells.assign(images=255 - cells.images)
    with pytest.raises(StaleCheckpointError, match="state of another training"):
        train(renewed, "presence", small(), checkpoint=path, identity="2023", device="cpu")
    same = train(cells, "presence", small(), checkpoint=path, identity="2019", device="cpu")
    assert_same_model(same, train(cells, "presence", small(), device="cpu"))


def test_a_checkpoint_of_more_epochs_than_asked_is_refused(cells, tmp_path):
    path = tmp_path / "state"
    train(cells, "presence", small(epochs=3), checkpoint=path, device="cpu")
    with pytest.raises(StaleCheckpointError, match="after 3 epochs, expected at most 2"):
        train(cells, "presence", small(epochs=2), checkpoint=path, device="cpu")


@pytest.mark.parametrize("before", [{"epochs": 3}, {"rate": 1e-5, "epochs": 1}])
def test_a_stale_checkpoint_is_discarded_where_asked(cells, tmp_path, before):
    path, config, told = tmp_path / "state", small(epochs=2), []
    train(cells, "presence", small(**before), checkpoint=path, device="cpu")
    asked = {"checkpoint": path, "stale": "discard", "device": "cpu"}
    with pytest.warns(StaleCheckpointWarning, match="training starts anew, because .*state"):
        model = train(cells, "presence", config, progress=told.append, **asked)
    assert [progress.epoch for progress in told] == [1, 2]
    assert_same_model(model, train(cells, "presence", config, device="cpu"))
    assert_same_model(model, train(cells, "presence", config, **asked))  # goes on from its own
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match="is not the state of a training"):
        train(cells, "presence", config, **asked)
    assert path.read_bytes() == b"something else"
    with pytest.raises(InputError, match="stale is 'keep', expected error or discard"):
        train(cells, "presence", config, **asked | {"stale": "keep"})


def limited(most):
    """Let networks run out of memory with batches above `most` cells."""

    def check(module, inputs):
        if isinstance(module, PresenceCNN | CountCNN) and len(inputs[0]) > most:
            raise torch.OutOfMemoryError("a batch is too large")

    return nn.modules.module.register_module_forward_pre_hook(check)


def test_running_out_of_memory_halves_the_batch_and_says_so(cells, tmp_path):
    path, told = tmp_path / "state", []
    hook = limited(5)
    try:
        with pytest.warns(BatchHalvedWarning) as caught:
            config = small(batch_size=16)
            model = train(
                cells, "presence", config, checkpoint=path, progress=told.append, device="cpu"
            )
    finally:
        hook.remove()
    said = [str(warning.message) for warning in caught]
    assert "the batch is now 8 cells instead of 16" in said[0]
    assert "the batch is now 4 cells instead of 16" in said[1]
    assert [progress.batch_size for progress in told] == [4, 4, 4]
    assert [row["batch_size"] for row in model.history] == [4, 4, 4]
    assert Checkpoint.load(path, _identity(path)).plain["batch_size"] == 4


def _identity(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["popdask.checkpoint"])["training"]


def test_a_cell_that_never_fits_is_an_error(cells):
    hook = limited(0)
    try:
        with (
            pytest.warns(BatchHalvedWarning),
            pytest.raises(InputError, match="one cell alone does not fit"),
        ):
            train(cells, "presence", small(), device="cpu")
    finally:
        hook.remove()


def test_progress_tells_losses_and_the_falling_rate(cells):
    told = []
    config = small(rate=1e-9, epochs=30, patience=1, stop_after=6)
    train(cells, "presence", config, progress=told.append, device="cpu")
    assert all(isinstance(progress, Progress) for progress in told)
    assert told[-1].epoch - told[-1].best_epoch == 6 or len(told) == 30
    noisy = replace(config, rate=1.0, flips="none", network=SMALL_PRESENCE | {"dropout": 0.5})
    told.clear()
    train(cells, "presence", noisy, progress=told.append, device="cpu")
    rates = [progress.rate for progress in told]
    assert rates[0] == 1.0
    assert set(np.diff(np.log2(rates))) == {0.0, -1.0}
    assert len(told) < 30
    assert told[-1].epoch - told[-1].best_epoch == 6


def gate_for(cells, **fields):
    """A classifier of untrained weights; it says different things of different cells."""
    network = {"network": "PresenceCNN", **SMALL_PRESENCE}
    gate = TrainedModel.untrained("presence", network, pixels=16, **fields)
    with torch.no_grad():
        outputs = torch.logit(torch.from_numpy(gate.predict(cells.images.values)))
        gate.module.head[-1].bias -= outputs.median()
    return gate


def test_counts_learn_from_cells_with_people_or_seen_with_people(cells):
    people, split = cells.people.values, cells.split.values
    training, _, validation = choose_cells(cells, "count", None, small("count"), "cpu")
    np.testing.assert_array_equal(training, np.flatnonzero((people > 0) & (split == 0)))
    np.testing.assert_array_equal(validation, np.flatnonzero((people > 0) & (split == 1)))
    gate = gate_for(cells, split=split_fingerprint(cells))
    seen = predict_cells(gate, cells, threads=1) > 0.5
    assert 0.3 < seen.mean() < 0.7
    training, _, validation = choose_cells(cells, "count", gate, small("count"), "cpu")
    np.testing.assert_array_equal(training, np.flatnonzero(seen & (split == 0)))
    np.testing.assert_array_equal(validation, np.flatnonzero(seen & (split == 1)))
    model = train(cells, "count", small("count", epochs=1), gate=gate, device="cpu")
    assert len(model.training_cells) == len(training)


def test_unknown_people_and_cells_on_neither_side_are_left_out(cells):
    people = cells.people.values.copy()
    people[:10] = np.nan
    split = cells.split.values.copy()
    split[10:20] = -1
    left = cells.assign(people=("cell", people)).assign_coords(split=("cell", split))
    training, _, validation = choose_cells(left, "presence", None, small(), "cpu")
    assert sorted([*training, *validation]) == list(range(20, 96))


def test_a_gate_that_is_nearly_closed_warns(cells):
    gate = gate_for(cells, split=split_fingerprint(cells))
    with torch.no_grad():
        gate.module.head[-1].bias.sub_(100)
    with (
        pytest.warns(GateWarning, match="leaves 0 of"),
        pytest.raises(InputError, match=r"0 train.*let the count learn"),
    ):
        choose_cells(cells, "count", gate, small("count"), "cpu")


def test_a_gate_from_another_split_warns_of_leakage(cells):
    gate = gate_for(cells, split="another")
    with pytest.warns(LeakageWarning, match="leakage"):
        choose_cells(cells, "count", gate, small("count"), "cpu")
    with pytest.raises(InputError, match="expected one of presence for training count"):
        choose_cells(cells, "transformer", gate, small("count"), "cpu")


def test_balance_draws_each_bin_equally_often():
    people = np.concatenate([np.zeros(80), np.ones(15), np.full(5, 100.0)])
    shares = draw_shares(people, small(balance=1.0))
    totals = [shares[people == value].sum() for value in (0, 1, 100)]
    np.testing.assert_allclose(totals, 1 / 3)
    halfway = draw_shares(people, small(balance=0.5))
    totals = np.array([halfway[people == value].sum() for value in (0, 1, 100)])
    np.testing.assert_allclose(totals, np.sqrt([80, 15, 5]) / np.sqrt([80, 15, 5]).sum())
    assert draw_shares(people, small(balance=0.0)) is None
    edges = np.linspace(1, 100, 11)
    spread = np.linspace(1, 100, 1000)
    bins = np.clip(np.digitize(spread, edges) - 1, 0, 9)
    shares = draw_shares(spread, small(balance=1.0))
    np.testing.assert_allclose(np.bincount(bins, shares), 0.1)


def vary(varied, images, places=slice(0, 40)):
    before = images.clone()
    found = varied.relight(varied.mirror(images, places), places)
    assert torch.equal(images, before)
    return found


def test_variations_are_what_they_say_and_depend_on_the_place_alone():
    images = torch.from_numpy(np.random.default_rng(0).random((40, 2, 6, 5))).float()
    varied = Augmentation.draw(40, np.random.default_rng(1), flips="both", jitter=0.2)
    whole = vary(varied, images)
    parts = [vary(varied, images[a:b], slice(a, b)) for a, b in [(0, 7), (7, 8), (8, 40)]]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-7)
    for i in range(40):
        plain = images[i].numpy()
        if varied.flips[i, 0]:
            plain = plain[:, :, ::-1]
        if varied.flips[i, 1]:
            plain = plain[:, ::-1]
        plain = np.clip(plain * varied.brightness[i], 0, 1)
        plain = np.clip((plain - plain.mean()) * varied.contrast[i] + plain.mean(), 0, 1)
        np.testing.assert_allclose(whole[i], plain, atol=1e-6)
    assert 5 < varied.flips[:, 0].sum() < 35
    assert varied.brightness.min() >= 0.8
    assert varied.contrast.max() <= 1.2
    none = Augmentation.draw(40, np.random.default_rng(1), flips="none", jitter=0.0)
    for same in (images, 200 * images - 50):
        torch.testing.assert_close(vary(none, same), same)


@pytest.mark.parametrize(("jitter", "varied"), [(0.0, False), (0.2, True)])
def test_light_is_varied_only_where_that_is_asked_for(jitter, varied, monkeypatch):
    asked, relight = [], Augmentation.relight
    monkeypatch.setattr(
        Augmentation, "relight", lambda *given: asked.append(given) or relight(*given)
    )
    train(cells_of(*houses()), "presence", small(epochs=1, jitter=jitter), device="cpu")
    assert bool(asked) == varied


def test_bands_and_a_ring_of_context_reach_the_network():
    images, people = houses(60, pixels=48, bands=3)
    world = cells_of(images, people, context=1, resolution=6.25)
    config = small("count", epochs=1, normalise="bands")
    model = train(world, "count", config, device="cpu")
    assert model.config["bands"] == 3
    assert model.config["ring"] == 16
    assert model.context == 1
    training = world.images.values[np.flatnonzero((world.split == 0) & (world.people > 0))] / 255
    np.testing.assert_allclose(model.normalisation.mean, training.mean((0, 2, 3)))


@pytest.mark.parametrize("normalise", ["half", "bands"])
def test_floats_are_learned_from_in_any_unit(normalise):
    images, people = houses(200)
    config = small("presence", epochs=8, normalise=normalise)
    model = train(cells_of(images.astype(np.float32), people), "presence", config, device="cpu")
    assert model.figures["matthews"] > 0.9


def test_sixteen_bits_of_colour_are_learned_from_as_bytes_are():
    images, people = houses(60)
    bytes_, words = (
        train(cells_of(array, people), "count", small("count", epochs=1), device="cpu")
        for array in (images, images.astype(np.uint16) * 257)
    )
    said = bytes_.predict(images), words.predict(images.astype(np.uint16) * 257)
    np.testing.assert_allclose(*said, rtol=1e-3)


@pytest.mark.parametrize("normalise", ["half", "bands"])
def test_a_ring_beyond_the_mosaic_reads_as_zero(normalise):
    images, people = houses(60, pixels=48)
    images = (images / 255).astype(np.float32)
    images[:, :, :16] = np.nan
    config = small("presence", epochs=1, normalise=normalise)
    one, other = (
        train(cells_of(seen, people, context=1, resolution=6.25), "presence", config, device="cpu")
        for seen in (images, np.nan_to_num(images))
    )
    assert_same_model(one, other)


@pytest.mark.parametrize("cells_size", ["100m", "300m"])
@pytest.mark.parametrize("kind", ["presence", "count", "transformer", "weighted"])
def test_the_published_settings_are_at_hand(kind, cells_size):
    pixels = {"100m": 200, "300m": 600}[cells_size]
    config = TrainingConfig.preset(kind, cells_size, epochs=10)
    network = config.network_for(kind, bands=1, pixels=pixels, ring=0)
    expected = {
        ("presence", "100m"): (8.59e-5, 1.7e-4, 64, "adam", 0.003),
        ("presence", "300m"): (8.59e-5, 1.7e-4, 64, "adam", 0.183),
        ("count", "100m"): (9.18e-5, 4e-4, 32, "adamw", 0.27),
        ("count", "300m"): (3e-4, 1e-4, 16, "adamw", 0.3),
    }
    if (kind, cells_size) in expected:
        settings = (config.rate, config.weight_decay, config.batch_size, config.optimizer)
        assert (*settings, build(network).config["dropout"]) == expected[kind, cells_size]
    assert config.balance == {"transformer": 1.0, "weighted": 0.5}.get(kind, 0.0)
    assert config.epochs == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer is 'sgd', expected one of adam, adamw"),
        ({"flips": "up"}, "flips is 'up'"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"rate": -1.0}, "rate is -1.0"),
        ({"threads": 0}, "threads is 0"),
        ({"jitter": 2.0}, "jitter is 2.0"),
        ({"seed": -1}, "seed is -1, expected a whole number, 0 or more"),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    with pytest.raises(InputError, match=message):
        small(**change)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"network": "ResNet"}, "the network is 'ResNet', expected one of PresenceCNN"),
        ({"depth": 3}, "PresenceCNN cannot be built .*'depth'"),
        ({"widths": []}, r"widths of PresenceCNN is \(\)"),
        ({"network": "CountCNN", "blocks": 0}, "blocks of CountCNN is 0"),
    ],
)
def test_an_unknown_network_is_named_before_its_size(network, message):
    with pytest.raises(InputError, match=message):
        small(network=network).network_for("presence", bands=1, pixels=4, ring=0)


@pytest.mark.parametrize("device", ["foo", "cpu:x", "hpu", "meta"])
def test_an_unknown_device_is_named(cells, device):
    with pytest.raises(InputError, match=f"device is '{device}', which torch does not"):
        train(cells, "presence", small(), device=device)


def test_an_unknown_preset_is_named():
    with pytest.raises(InputError, match="no settings of 'presence' for '50m'"):
        TrainingConfig.preset("presence", "50m")
    with pytest.raises(InputError, match="no setting learning"):
        TrainingConfig.preset("presence", learning=0.1)


def test_cells_that_cannot_be_trained_on_are_named(cells):
    with pytest.raises(InputError, match="have no split"):
        train(cells.drop_vars("split"), "presence", small(), device="cpu")
    with pytest.raises(InputError, match="0 training and 0 validation cells for count"):
        train(cells.assign(people=cells.people * 0), "count", small("count"), device="cpu")
    with pytest.raises(InputError, match="expected at least 32"):
        train(cells, "presence", small(network={}), device="cpu")
    with pytest.raises(InputError, match="lower the rate"):
        huge = cells.assign(people=cells.people * 1e30)
        train(huge, "count", small("count", rate=1.0), device="cpu")
    with pytest.raises(InputError, match="expected squares"):
        train(cells.isel(row=slice(8)), "presence", small(), device="cpu")


def test_training_can_be_sent_to_a_worker(cells):
    config = small(epochs=2)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        there = client.submit(train, cells, "presence", config, device="cpu").result()
    assert_same_model(there, train(cells, "presence", config, device="cpu"))


@pytest.mark.parametrize("kind", ["presence", "count", "transformer"])
def test_sixteen_bits_learn_what_thirty_two_do(kind):
    # Each processor adds sixteen bits in an order of its own: at three times the rate paths part.
    cells = cells_of(*houses(200))
    full, half = (
        train(cells, kind, small(kind, rate=1e-4, precision=precision), device="cpu")
        for precision in ("float32", "bfloat16")
    )
    losses = [[row["validation"] for row in model.history] for model in (full, half)]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    images = cells.images.values[:64]
    assert not np.array_equal(half.predict(images), replace(half, settings={}).predict(images))


def test_the_last_layer_counts_in_thirty_two_bits():
    network = CountCNN(blocks=2, base=4, hidden=8).eval()
    with torch.no_grad():
        network.head[-1].weight.zero_()
        network.head[-1].bias.fill_(5001)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert network(torch.rand(2, 1, 16, 16)).tolist() == [5001, 5001]
