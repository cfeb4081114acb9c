"""The search for better settings: their spaces, its trials, and how it goes on.

The classifier's are those that Sellebjerg et al. searched through; of their regressor they searched
the architecture and the rates. A space takes an Optuna trial and the pixels along a cell's side,
and gives settings as `popdask.imagery.loading.TrainingConfig` has them.

On a cluster a trial reports each epoch through a queue, and an event tells it to stop. The books
are kept by who asked for it alone, so a worker that dies takes one trial with it and nothing else.

Sellebjerg, Lorentsen, Møller-Jensen, Siddique and Hansen, Population Estimation, tried 40 settings
of the classifier and 100 of the regressor, 10 epochs each, and gave up those that lay behind the
median of the earlier ones. The study is asked, told and written down by one process alone; where
trials run, here or on the workers of a cluster, does not change them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np
import pandas as pd
import torch
from distributed import Client, Event, Future, KilledWorker, Queue, default_client, get_worker, wait
from xarray import Dataset

from popdask.errors import InputError
from popdask.imagery.cells import split_fingerprint
from popdask.imagery.loading import TrainingConfig
from popdask.imagery.model import KINDS, TrainedModel
from popdask.imagery.trainer import TrainingError
from popdask.imagery.training import Progress, train

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import BaseTrial, Trial

Space = Callable[["BaseTrial", int], Mapping[str, Any]]

#: How many settings are tried by default: as many as of the published classifier and regressor.
TRIALS = {"presence": 40, "count": 100, "weighted": 100, "transformer": 100}


def presence_space(trial: BaseTrial, pixels: int) -> dict[str, Any]:
    """Propose rate, dropout, batch, weight decay and optimiser, as for the published classifier."""
    return {
        "rate": trial.suggest_float("rate", 1e-5, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64, 128]),
        "optimizer": trial.suggest_categorical("optimizer", ["adam", "adamw"]),
        "network": {"dropout": trial.suggest_float("dropout", 0.0, 0.5)},
    }


def count_space(trial: BaseTrial, pixels: int) -> dict[str, Any]:
    """Propose the architecture of the regressor, and its rates."""
    most = max(1, min(6, int(np.log2(pixels))))
    return {
        "rate": trial.suggest_float("rate", 1e-5, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [8, 16, 32, 64]),
        "network": {
            "blocks": trial.suggest_int("blocks", min(3, most), most),
            "base": trial.suggest_categorical("base", [16, 32, 64]),
            "scale": trial.suggest_categorical("scale", [1.5, 2.0]),
            "double": trial.suggest_categorical("double", [True, False]),
            "hidden": trial.suggest_categorical("hidden", [128, 256, 512]),
            "extra": trial.suggest_categorical("extra", [True, False]),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        },
    }


def transformer_space(trial: BaseTrial, pixels: int) -> dict[str, Any]:
    """Propose the size of the transformer, and its rates; the patches stay."""
    return {
        "rate": trial.suggest_float("rate", 1e-5, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [8, 16, 32]),
        "network": {
            "width": trial.suggest_categorical("width", [96, 192]),
            "layers": trial.suggest_int("layers", 2, 8),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        },
    }


SPACES: dict[str, Space] = {
    "presence": presence_space,
    "count": count_space,
    "weighted": count_space,
    "transformer": transformer_space,
}


Training = Callable[..., TrainedModel]  # with some settings; all else is the same for all trials
Judge = Callable[[int, int, float], bool]  # trial, epoch, loss -> whether to give it up
LISTEN = 0.2  # seconds between two looks at the reports


class Outcome(NamedTuple):
    """What came of a trial."""

    loss: float | None
    """The lowest validation loss; None where the trial was given up."""
    reason: str = ""
    """Why it was given up."""


class _GivenUpError(Exception):
    """Raised in a training to end it."""


def attempt(
    training: Training, config: TrainingConfig, give_up: Callable[[int, float], bool]
) -> Outcome:
    """Train with some settings, as long as nobody gives it up and memory suffices."""
    losses: list[float] = []

    def listen(progress: Progress) -> None:
        if progress.batch_size < config.batch_size:
            raise _GivenUpError(f"memory ran out with a batch of {config.batch_size}")
        losses.append(progress.validation)
        if give_up(progress.epoch, progress.validation) and progress.epoch < config.epochs:
            raise _GivenUpError("behind the median of the trials before")

    try:
        training(config, progress=listen)
    except (_GivenUpError, TrainingError, torch.OutOfMemoryError) as error:
        return Outcome(None, str(error))
    return Outcome(min(losses))


class Here:
    """Trials in this process, one at a time."""

    slots = 1

    def __init__(self, training: Training, judge: Judge) -> None:
        self.training, self.judge = training, judge
        self.waiting: list[tuple[int, TrainingConfig]] = []

    def start(self, number: int, config: TrainingConfig) -> None:
        """Take a trial on."""
        self.waiting.append((number, config))

    def finished(self) -> Iterator[tuple[int, Outcome]]:
        """Return the trials that ended, with their outcomes."""
        number, config = self.waiting.pop()
        yield number, attempt(self.training, config, partial(self.judge, number))

    def stop(self) -> None:
        """Let go of unfinished trials."""
        self.waiting.clear()


def _attempt_there(training: Training, config: TrainingConfig, name: str, number: int) -> Outcome:
    """Make an attempt on a worker, and report each epoch to who asked for it."""

    def give_up(epoch: int, loss: float) -> bool:
        Queue(name).put((number, epoch, loss))
        return Event(f"{name}-{number}").is_set()

    threads = config.threads or get_worker().state.nthreads
    return attempt(training, replace(config, threads=threads), give_up)


class OnCluster:
    """Trials on the workers of the current Dask client, one on each."""

    def __init__(self, client: Client, training: Training, judge: Judge) -> None:
        self.client, self.training, self.judge = client, training, judge
        self.name = f"popdask-tuning-{uuid4().hex}"
        self.reports = Queue(self.name, client=client)
        self.handed_out: Future | None = None
        self.running: dict[Future, int] = {}

    @property
    def slots(self) -> int:
        """How many trials run at once: as many as there are workers now."""
        return max(1, len(self.client.nthreads()))

    def start(self, number: int, config: TrainingConfig) -> None:
        """Send a trial out."""
        if self.handed_out is None:  # every worker gets the cells, once for all trials
            self.handed_out = self.client.scatter(self.training, broadcast=True, hash=False)
        future = self.client.submit(
            _attempt_there, self.handed_out, config, self.name, number, pure=False
        )
        self.running[future] = number

    def finished(self) -> Iterator[tuple[int, Outcome]]:
        """Hear the reports, stop what lies behind, and give the trials that ended."""
        with suppress(TimeoutError):
            wait(list(self.running), timeout=LISTEN, return_when="FIRST_COMPLETED")
        ended = [future for future in self.running if future.done()]
        for number, epoch, loss in self.reports.get(batch=True):
            if self.judge(number, epoch, loss):
                Event(f"{self.name}-{number}", client=self.client).set()
        for future in ended:
            yield self.running.pop(future), self._outcome(future)

    def _outcome(self, future: Future) -> Outcome:
        try:
            return future.result()
        except (KilledWorker, CancelledError):
            self.handed_out = None  # what lay on that worker may be lost
            return Outcome(None, "its worker was killed, most often because memory ran out")

    def stop(self) -> None:
        """Let go of unfinished trials."""
        self.client.cancel(list(self.running))
        self.reports.close()


def runner(training: Training, judge: Judge) -> Any:
    """Choose where trials run: on the current cluster, or here."""
    try:
        client = default_client()
    except ValueError:
        return Here(training, judge)
    return OnCluster(client, training, judge)


class Tuning(NamedTuple):
    """What a search found."""

    trials: pd.DataFrame
    """One row per trial: number, state ("complete", "pruned", or "fail" where it was cut off),
    loss, epochs, reason, and the settings that were tried."""
    best: TrainingConfig
    """The settings with the lowest validation loss, for a training of full length."""


def tune(
    cells: Dataset,
    kind: str,
    trials: int | None = None,
    *,
    config: TrainingConfig | None = None,
    epochs: int = 10,
    storage: str | Path | None = None,
    seed: int = 0,
    gate: TrainedModel | None = None,
    space: Space | None = None,
    device: str = "auto",
    progress: Callable[[pd.Series], object] | None = None,
) -> Tuning:
    """Search for the settings with the lowest validation loss.

    Parameters
    ----------
    cells, kind, gate, device
        As for `popdask.imagery.training.train`.
    trials : int, optional
        How many settings to try in all, those counted that a stored study has tried already; by
        default as many as were published: 40 for ``"presence"``, 100 for the other kinds.
    config : TrainingConfig, optional
        The settings that are not searched for; by default those published for the kind.
    epochs : int, optional
        Length of a trial.
    storage : path, optional
        An SQLite file for the study. Where it is there, the search goes on; trials that were cut
        off are made again.
    seed : int, optional
        Of the proposals.
    space : callable, optional
        Given an Optuna trial and the pixels along a cell's side, gives the settings to try, as
        `TrainingConfig` takes them; by default what `SPACES` has for the kind.
    progress : callable, optional
        Called with a Series for each trial that ended: its row of ``Tuning.trials``.

    Returns
    -------
    Tuning
        The table of trials, and the best settings.

    Raises
    ------
    InputError
        If Optuna is not installed, the stored study is another one, a setting is wrong, or no trial
        came to its end.

    Notes
    -----
    Proposals by the tree-structured Parzen estimator; median pruning after 5 trials, from the
    second epoch on. Trials run on the workers of the current Dask client, one on each, or here, one
    after the other; then the same seed gives the same search. A trial that runs out of memory is
    pruned. One process at a time may use a storage.

    Examples
    --------
    >>> import dask.array as da
    >>> from popdask.imagery.cells import make_cells
    >>> from popdask.imagery.grid import CellGrid
    >>> rng = np.random.default_rng(0)
    >>> people = rng.integers(0, 2, 24).astype(float)
    >>> images = da.asarray(rng.integers(0, 255, (24, 1, 8, 8)).astype("uint8"))
    >>> cells = make_cells(images, people, np.arange(24), np.arange(24), CellGrid(100))
    >>> cells = cells.assign_coords(split=("cell", np.int8(np.arange(24) % 4 == 0)))
    >>> config = TrainingConfig({"widths": (4,), "hidden": (4,)}, threads=1)
    >>> found = tune(cells, "presence", 2, config=config, epochs=1, device="cpu")
    >>> found.trials.state.tolist(), found.best.epochs
    (['complete', 'complete'], 50)
    """
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    trials = TRIALS[kind] if trials is None else trials
    if trials < 1 or epochs < 1:
        raise InputError(f"there are {trials} trials of {epochs} epochs, expected at least 1 of 1")
    if seed < 0:
        raise InputError(f"seed is {seed}, expected a whole number, 0 or more; correct it")
    config = config or TrainingConfig.preset(kind)
    side = cells.sizes["row"] // (2 * int(cells.attrs.get("context", 0)) + 1)
    settings = partial(_settings, config, space or SPACES[kind], side)
    with _quiet() as optuna:
        study = _open_study(storage, f"{kind} {epochs} {seed} {split_fingerprint(cells)}")
        training = partial(train, cells, kind, gate=gate, device=device)
        _search(study, trials, training, partial(settings, epochs), seed, progress)
        table = _table(study)
        if not (table["state"] == "complete").any():
            raise InputError(
                f"none of the {len(table)} trials came to its end (the last: "
                f"{table['reason'].iloc[-1]}), expected one; correct the settings"
            )
        best = settings(config.epochs, optuna.trial.FixedTrial(study.best_params))
    return Tuning(table, best)


def _settings(
    config: TrainingConfig, space: Space, pixels: int, epochs: int, trial: BaseTrial
) -> TrainingConfig:
    """Make a trial's proposals the settings of a training."""
    changes = dict(space(trial, pixels))
    network = {**config.network, **changes.pop("network", {})}
    return replace(config, network=network, epochs=epochs, **changes)


@contextmanager
def _quiet() -> Iterator[Any]:
    """Give Optuna, which says less meanwhile: what there is to say goes through `progress`."""
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "tuning needs optuna, which is not installed here; pip install 'popdask[tuning]'"
        ) from error
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def _open_study(storage: str | Path | None, identity: str) -> Study:
    """Make a study, or open it and have the trials made again that were cut off."""
    import optuna
    from optuna.trial import TrialState

    study = optuna.create_study(
        storage=None if storage is None else f"sqlite:///{storage}",
        study_name="popdask",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )
    known = study.user_attrs.get("identity", identity)
    if known != identity:
        raise InputError(
            f"{storage} is the study of another search (kind, epochs, seed, split: {known}), "
            f"expected {identity}; remove it or name another"
        )
    study.set_user_attr("identity", identity)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _search(
    study: Study,
    trials: int,
    training: Training,
    settings: Callable[[BaseTrial], TrainingConfig],
    seed: int,
    progress: Callable[[pd.Series], object] | None,
) -> None:
    """Ask for settings and have them tried, until so many trials have come to an end."""
    running: dict[int, Trial] = {}

    def judge(number: int, epoch: int, loss: float) -> bool:
        if number not in running:
            return False  # its last words came after its end
        running[number].report(loss, epoch)
        return running[number].should_prune()

    at_work = runner(training, judge)
    try:
        while True:
            wanted = trials - _ended(study) - len(running)
            for _ in range(min(wanted, at_work.slots - len(running))):
                trial = _ask(study, seed)
                running[trial.number] = trial
                at_work.start(trial.number, settings(trial))
            if not running:
                return
            for number, outcome in at_work.finished():
                _record_outcome(study, running.pop(number), outcome)
                if progress:
                    progress(_table(study).loc[number])
    finally:
        at_work.stop()


def _ask(study: Study, seed: int) -> Trial:
    """Ask for a trial; what is drawn depends on the seed and the trial's number alone."""
    from optuna.samplers import TPESampler

    drawn = np.random.SeedSequence([seed, len(study.get_trials(deepcopy=False))])
    study.sampler = TPESampler(seed=int(drawn.generate_state(1)[0]))
    return study.ask()


def _record_outcome(study: Study, trial: Trial, outcome: Outcome) -> None:
    from optuna.trial import TrialState

    trial.set_user_attr("reason", outcome.reason)
    if outcome.loss is None:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, outcome.loss)


def _ended(study: Study) -> int:
    from optuna.trial import TrialState

    ends = (TrialState.COMPLETE, TrialState.PRUNED)
    return len(study.get_trials(deepcopy=False, states=ends))


def _table(study: Study) -> pd.DataFrame:
    """One row per trial that was begun."""
    rows = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "loss": min(trial.intermediate_values.values(), default=np.nan),
            "epochs": len(trial.intermediate_values),
            "reason": trial.user_attrs.get("reason", ""),
            **trial.params,
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name != "WAITING"
    ]
    return pd.DataFrame(rows).set_index("number", drop=False)
