"""How fast a machine works: seconds of one core for each unit of work, measured and kept.

A rate has a name in words, ``flow per cell``. What a rate is measured on and what it is used for
count their work with the same functions, so a rate means nothing beyond them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from popdask.errors import InputError
from popdask.whole import write_text


@dataclass(frozen=True)
class Rates:
    """What was measured on a machine."""

    seconds: Mapping[str, float]
    """Seconds of one core for a unit of work, by the name of the rate."""
    task: float
    """Seconds for each task of a graph, all workers together: what Dask's scheduler takes."""
    start: float
    """Seconds until the workers are there and have loaded their libraries."""
    host: str
    """Name of the machine."""
    cores: int
    """Its cores."""
    date: str
    """Day of the measurement, ISO."""
    versions: Mapping[str, str]
    """Versions of Python and the libraries."""

    def __str__(self) -> str:
        cores = f"{self.cores} core{'s' if self.cores != 1 else ''}"
        return f"rates of {self.date}, {self.host} with {cores}"


def rates_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell where the rates of this machine are kept.

    Parameters
    ----------
    environ
        ``POPDASK_RATES`` names the file; without it, it is in the user's configuration folder.

    Examples
    --------
    >>> rates_file({"XDG_CONFIG_HOME": "/home/ann/.config"}).as_posix()
    '/home/ann/.config/popdask/rates.json'
    """
    if named := environ.get("POPDASK_RATES"):
        return Path(named)
    home = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "popdask" / "rates.json"


def load_rates(path: Path | None = None) -> Rates | None:
    """Read what was measured; None where nothing is.

    Parameters
    ----------
    path
        The file; by default that of `rates_file`.

    Raises
    ------
    InputError
        If the file holds something else.
    """
    path = path or rates_file()
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Rates(**told)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} holds no rates of a machine ({error}); measure them again with `popdask "
            "calibrate`, or remove the file."
        ) from error


def save_rates(rates: Rates, path: Path | None = None) -> Path:
    """Keep what was measured, whole or not at all; tell where.

    Parameters
    ----------
    rates
        What was measured.
    path
        The file; by default that of `rates_file`.
    """
    told = json.dumps(asdict(rates), indent=1, ensure_ascii=False)
    return write_text(path or rates_file(), f"{told}\n")
