"""A place where work is done: what each kind of cluster gives to the connection."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from distributed import Security

from popdask.cluster.spec import Tls
from popdask.errors import InputError


@dataclass(frozen=True)
class Place:
    """Where the workers of a run are, or will be."""

    target: Any
    """What a client is made of: a Dask cluster, or a scheduler's address."""
    security: Security | None = None
    """The certificates that the client shows."""
    says: Callable[[], str] = str
    """Asks the system that starts the workers why they are not there."""
    refusals: Sequence[str] = ()
    """What that system has refused so far: then no worker will come."""

    def reason(self) -> str:
        """Give what the system says as the end of a sentence; nothing, if it says nothing."""
        said = self.says()
        return f"; {said}" if said else ""


def security(tls: Tls | None) -> Security | None:
    """Give the certificates of a folder that `make_certificates` has filled.

    Raises
    ------
    InputError
        If a certificate or a key is not there.
    """
    if tls is None:
        return None
    folder = Path(tls.folder)
    files = {"tls_ca_file": folder / "ca.pem"}
    for role in ("scheduler", "worker", "client"):
        files[f"tls_{role}_cert"] = folder / f"{role}.pem"
        files[f"tls_{role}_key"] = folder / f"{role}-key.pem"
    for path in files.values():
        if not path.is_file():
            raise InputError(
                f"[tls] folder: there is no {path}: `popdask certificates {folder}` makes it."
            )
    return Security(require_encryption=True, **{name: str(path) for name, path in files.items()})


def needs(module: str, extra: str, kind: str) -> ModuleType:
    """Import what a kind of cluster needs, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f'{kind} needs {error.name}, which is not installed: pip install "popdask[{extra}]".'
        ) from None
