"""Search for the settings of a training: Optuna proposes, short trainings answer.

Sellebjerg, Lorentsen, Møller-Jensen, Siddique and Hansen, Population Estimation, tried 40 settings
of the classifier and 100 of the regressor, 10 epochs each, and gave up those that lay behind the
median of the earlier ones. The study is asked, told and written down by one process alone; where
trials run is the matter of `popdask.imagery.tuning.trials`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from xarray import Dataset

from popdask.errors import InputError
from popdask.imagery.cells import split_fingerprint
from popdask.imagery.models import KINDS, TrainedModel
from popdask.imagery.training import TrainingConfig
from popdask.imagery.tuning.spaces import SPACES, TRIALS, Space
from popdask.imagery.tuning.trials import Outcome, Task, runner

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import BaseTrial, Trial


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
    plan = _Plan(config, space or SPACES[kind], side)
    with _quiet() as optuna:
        study = _open_study(storage, f"{kind} {epochs} {seed} {split_fingerprint(cells)}")
        task = Task(cells, kind, gate, device)
        _search(study, trials, task, partial(plan.settings, epochs=epochs), seed, progress)
        table = _table(study)
        if not (table["state"] == "complete").any():
            raise InputError(
                f"none of the {len(table)} trials came to its end (the last: "
                f"{table['reason'].iloc[-1]}), expected one; correct the settings"
            )
        best = plan.settings(optuna.trial.FixedTrial(study.best_params), config.epochs)
    return Tuning(table, best)


@dataclass(frozen=True)
class _Plan:
    """How a trial's proposals become the settings of a training."""

    config: TrainingConfig
    space: Space
    pixels: int

    def settings(self, trial: BaseTrial, epochs: int) -> TrainingConfig:
        changes = dict(self.space(trial, self.pixels))
        network = {**self.config.network, **changes.pop("network", {})}
        return replace(self.config, network=network, epochs=epochs, **changes)


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
    task: Task,
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

    at_work = runner(task, judge)
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
                _tell(study, running.pop(number), outcome)
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


def _tell(study: Study, trial: Trial, outcome: Outcome) -> None:
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
