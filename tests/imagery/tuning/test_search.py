"""Searches find good settings, give up bad trials, and go on after a stop."""

import multiprocessing
import os
import signal

import dask
import dask.array as da
import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from distributed import Client, LocalCluster
from torch import nn

from popdask.errors import InputError
from popdask.imagery import tuning
from popdask.imagery.cells import make_cells, split_cells
from popdask.imagery.grid import CellGrid
from popdask.imagery.loading import TrainingConfig
from popdask.imagery.networks import PresenceCNN
from popdask.imagery.tuning import SPACES, tune

CONFIG = TrainingConfig(
    {"widths": (4,), "hidden": (4,), "pool": 2}, batch_size=8, stop_after=1000, threads=1
)


def bright_or_dark(n=40, read=None):
    """Cells that are bright where people live."""
    rng = np.random.default_rng(0)
    people = rng.integers(0, 2, n).astype(float)
    images = rng.integers(0, 100, (n, 1, 8, 8)) + 100 * people[:, None, None, None]
    images = da.from_array(images.astype(np.uint8), chunks=(20, 1, 8, 8))
    if read is not None:
        images = images.map_blocks(read, meta=np.empty((0, 0, 0, 0), np.uint8))
    cells = make_cells(images, people, np.arange(n), np.arange(n), CellGrid(100))
    return split_cells(cells, kind="random")


def rates(trial, pixels):
    return {"rate": trial.suggest_float("rate", 1e-4, 1e-1, log=True)}


def good_then_bad(trial, pixels):
    """Five rates that learn, then some that cannot; the best are offered again as they are."""
    low, high = (1e-2, 3e-2) if trial.number < 5 else (1e-12, 1e-11)
    return {"rate": trial.suggest_float("rate", low, high)}


def search(trials, cells=None, **settings):
    cells = bright_or_dark() if cells is None else cells
    given = {"config": CONFIG, "epochs": 2, "space": rates, "device": "cpu"} | settings
    return tune(cells, "presence", trials, **given)


def test_the_best_trial_gives_the_settings():
    told = []
    found = search(6, progress=told.append, epochs=4)
    assert len(found.trials) == len(told) == 6
    complete = found.trials[found.trials.state == "complete"]
    best = complete.loc[complete.loss.idxmin()]
    assert found.best.rate == best.rate
    assert (found.best.epochs, found.best.batch_size) == (50, 8)
    assert found.best.network == CONFIG.network
    assert (complete.epochs == 4).all()
    assert told[3].equals(found.trials.loc[3])


def test_the_same_seed_makes_the_same_search():
    pd.testing.assert_frame_equal(search(3).trials, search(3).trials)
    assert (search(3, seed=1).trials.rate != search(3).trials.rate).all()


def test_a_space_is_told_the_side_of_the_cell_without_its_ring():
    told = []
    cells = bright_or_dark().isel(cell=slice(8)).pad(row=8, col=8, constant_values=0)
    cells = cells.assign(images=cells["images"].astype("uint8")).assign_attrs(context=1)
    search(1, cells, space=lambda trial, pixels: told.append(pixels) or {}, epochs=1)
    assert set(told) == {8}


def test_trials_behind_the_median_are_pruned():
    found = search(7, space=good_then_bad, epochs=6)
    assert found.trials.state.tolist()[5:] == ["pruned", "pruned"]
    assert (found.trials.epochs[5:] < 6).all()
    assert found.trials.reason[6] == "behind the median of the trials before"
    assert found.best.rate > 1e-3


def test_a_trial_that_runs_out_of_memory_is_pruned():
    def check(module, inputs):
        if isinstance(module, PresenceCNN) and len(inputs[0]) > 8:
            raise torch.OutOfMemoryError("a batch is too large")

    def space(trial, pixels):
        return {"batch_size": trial.suggest_int("batch_size", 4, 16, step=4)}

    hook = nn.modules.module.register_module_forward_pre_hook(check)
    try:
        with pytest.warns(UserWarning, match="ran out"):
            table = search(8, space=space, epochs=1).trials
    finally:
        hook.remove()
    too_large = table.batch_size > 8
    assert too_large.any()
    assert (table.state == np.where(too_large, "pruned", "complete")).all()
    assert table.reason[too_large].str.contains("memory ran out with a batch of 1").all()


def test_a_search_without_any_result_says_why():
    def space(trial, pixels):
        return {"rate": 1.0, "normalise": "half", "white": 1e-38}

    with pytest.raises(InputError, match=r"none of the 2 trials .* loss of epoch 1"):
        search(2, space=space)


def test_a_stored_search_goes_on(tmp_path):
    storage = tmp_path / "study.sqlite"
    assert len(search(3, storage=storage).trials) == 3
    resumed = search(6, storage=storage)
    pd.testing.assert_frame_equal(resumed.trials, search(6).trials)
    pd.testing.assert_frame_equal(search(6, storage=storage).trials, resumed.trials)
    with pytest.raises(InputError, match=r"study of another search .*presence 2 0"):
        search(6, storage=storage, seed=1)


def search_until(batch, storage):
    """Search in a process that is killed in one of the batches."""
    calls = []

    def kill(module, inputs):
        calls.append(isinstance(module, PresenceCNN))
        if sum(calls) == batch:
            os.kill(os.getpid(), signal.SIGKILL)

    nn.modules.module.register_module_forward_pre_hook(kill)
    search(6, storage=storage)


def test_a_killed_search_makes_the_broken_trial_again(tmp_path):
    storage = str(tmp_path / "study.sqlite")
    args = (35, storage)  # a trial of two epochs has 14 batches or so
    killed = multiprocessing.get_context("forkserver").Process(target=search_until, args=args)
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    resumed = search(5, storage=storage).trials
    undisturbed = search(5).trials
    (broken,) = resumed.number[resumed.state == "fail"]
    assert 0 < broken < 4
    again = resumed.loc[broken + 1]
    assert again.rate == resumed.rate[broken] == undisturbed.rate[broken]
    assert again.loss == undisturbed.loss[broken]
    assert (resumed.state != "fail").sum() == 5


def test_trials_run_on_the_workers_of_the_current_cluster(monkeypatch):
    monkeypatch.setattr(tuning, "LISTEN", 0.02)
    at_once = []

    def space(trial, pixels):
        if hasattr(trial, "study"):
            at_once.append(sum(t.state.name == "RUNNING" for t in trial.study.trials))
        return good_then_bad(trial, pixels)

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        table = search(8, space=space, epochs=60).trials  # long, so that word of it arrives
    assert max(at_once) == 2
    # Five are the measure of the others; the sixth may have ended before the fifth had.
    assert (table.state[:5] == "complete").all() and (table.state[6:] == "pruned").all()
    assert (table.reason[6:] == "behind the median of the trials before").all()
    alone = search(1, space=good_then_bad, epochs=60).trials
    assert alone.loss[0] == table.loss[0]


def _end_the_process(block):
    os._exit(1)


def test_a_trial_whose_worker_dies_is_pruned():
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
        pytest.raises(InputError, match=r"none of the 1 trials .*worker was killed"),
    ):
        search(1, cells=bright_or_dark(read=_end_the_process))


@pytest.mark.parametrize("kind", SPACES)
def test_what_is_proposed_can_be_trained(kind):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for pixels in (40, 200):
        for _ in range(10):
            changes = dict(SPACES[kind](study.ask(), pixels))
            network = changes.pop("network")
            if kind == "transformer":
                network |= {"patch": 20}
            config = TrainingConfig.preset(kind, network=network, **changes)
            assert config.network_for(kind, bands=1, pixels=pixels, ring=0)


@pytest.mark.parametrize("trials", [0, -1])
def test_a_search_needs_trials(trials):
    with pytest.raises(InputError, match=f"there are {trials} trials"):
        search(trials)


@pytest.mark.parametrize(("kind", "trials"), [("presence", 40), ("count", 100)])
def test_as_many_trials_as_published_by_default(kind, trials):
    with pytest.raises(InputError, match=f"there are {trials} trials of 0 epochs"):
        tune(bright_or_dark(), kind, epochs=0)


def test_a_search_needs_a_seed_of_zero_or_more():
    with pytest.raises(InputError, match="seed is -1, expected a whole number"):
        search(1, seed=-1)
