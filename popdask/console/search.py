"""A search for better settings: its trials, and the best of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from popdask.console.lines import say
from popdask.console.words import written

if TYPE_CHECKING:
    import pandas as pd

    from popdask.imagery.tuning import Tuning


def show_trial(trial: pd.Series) -> None:
    """Print one trial of a search."""
    say(f"  trial {trial['number']}: {trial['state']}, loss {written(trial['loss'], '.4g')}")


def show_best(model: str, found: Tuning) -> None:
    """Print the best settings of a search, as they stand in a job file."""
    say(f"\n[{model}]")
    told = asdict(found.best)
    for name in ("batch_size", "rate", "weight_decay", "optimizer"):
        value = told[name]
        say(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value!r}")
    network = ", ".join(f"{name} = {_toml(value)}" for name, value in told["network"].items())
    say(f"network = {{ {network} }}")


def _toml(value: Any) -> str:
    """Write a value as in a job file."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)
