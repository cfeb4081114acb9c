"""Cluster files: TOML that names a cluster class of Dask with its own keyword arguments.

``[arguments]`` go to the class as they are. A table ``{ file = "cluster.yaml" }`` among them stands
for what that YAML file holds, where ``${UUID}`` is another in each run.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path
from typing import Annotated, Any

import yaml  # type: ignore[import-untyped]
from dask.utils import parse_timedelta
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from popdask.config.load import as_written, expand, nearest, read_toml
from popdask.config.settings import Settings
from popdask.errors import InputError

#: The address of a scheduler.
ADDRESS = r"^(tcp|tls)://\S+:\d{1,5}$"
#: What texts of another form were expected to be, by setting.
_EXPECTED = {
    "class": "expected local, or a class in its module such as dask_jobqueue.SLURMCluster",
    "address": "expected the address of a scheduler such as tcp://host:8786",
}


def _seconds(value: Any) -> int:
    text = re.sub(r"\bmins?$", "minutes", value.strip()) if isinstance(value, str) else value
    try:
        number = 0 if isinstance(text, bool) else int(parse_timedelta(text))
    except (KeyError, TypeError, ValueError):
        number = 0
    if number < 1:
        raise ValueError('expected a time such as "10 min"')
    return number


def _bounds(value: Any) -> tuple[int, int]:
    fewest, most = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    if not (type(fewest) is type(most) is int and 1 <= fewest <= most):
        raise ValueError("expected a number such as 8, or the fewest and the most such as [2, 16]")
    return fewest, most


#: Written as a text such as "10 min", here seconds.
Seconds = Annotated[int, BeforeValidator(_seconds)]
#: Written as a number or two, here the fewest and the most.
Bounds = Annotated[tuple[int, int], BeforeValidator(_bounds)]


class ClusterFile(Settings):
    """Where a job runs; without ``class`` and ``address`` it is this machine.

    Examples
    --------
    >>> ClusterFile(address="tcp://head:8786", needed=4).needed
    4
    """

    model_config = ConfigDict(populate_by_name=True)

    cluster_class: str | None = Field(None, alias="class", pattern=r"^(local|\w+(\.\w+)+)$")
    """A cluster class of Dask, or a function that gives a cluster, such as
    ``"dask_jobqueue.SLURMCluster"``; ``"local"`` is this machine."""
    address: Annotated[str, Field(pattern=ADDRESS)] | None = None
    """A scheduler that is already there, such as ``"tcp://host:8786"``, instead of a class."""
    workers: Bounds | None = None
    """How many: ``8``, or the fewest and the most, ``[2, 16]``. Lost ones are replaced."""
    needed: Annotated[int, Field(ge=1)] = 1
    """Workers that must be there before the run begins; others join while it goes on."""
    wait: Seconds = 300
    """How long to wait for them, and later, if all have left, for another."""
    status: str | None = None
    """A command that says how the workers' jobs stand, such as ``"squeue --me"``."""
    arguments: dict[str, Any] = Field({})
    """The class's own keyword arguments. For ``"local"`` those of Dask's ``LocalCluster``, and
    ``gpus = true`` for one worker with each GPU."""
    security: dict[str, str] = Field({})
    """Certificates that scheduler, workers and client show each other: the keyword arguments of
    Dask's ``Security``, such as ``tls_ca_file``, with paths relative to the file."""

    @model_validator(mode="after")
    def _one_cluster(self) -> ClusterFile:
        if self.address and (self.cluster_class or self.arguments or self.workers):
            raise ValueError("address is a scheduler that is there: leave out class and workers")
        if self.cluster_class not in (None, "local") and not self.workers:
            raise ValueError("workers is missing: give a number, or the fewest and the most")
        if self.workers and self.needed > self.workers[1]:
            raise ValueError(f"needed {self.needed} is more than the {self.workers[1]} workers")
        return self


def load_spec(path: str | Path) -> ClusterFile:
    r"""Read a cluster's file.

    Parameters
    ----------
    path
        The TOML file.

    Returns
    -------
    ClusterFile
        The settings; in ``address`` and ``[security]`` variables are expanded, and paths absolute.

    Raises
    ------
    InputError
        If the file is missing, is not TOML, or has a setting that is unknown or out of range.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from popdask._cluster_file import load_spec
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "two.toml")
    ...     _ = file.write_text('workers = 2\narguments.memory_limit = "1 GiB"')
    ...     spec = load_spec(file)
    >>> spec.workers, spec.arguments
    ((2, 2), {'memory_limit': '1 GiB'})
    """
    path = Path(path)
    settings = read_toml(path, "cluster file")
    if isinstance(settings.get("address"), str):
        settings["address"] = expand(settings["address"], path, "address")
    if isinstance(settings.get("security"), dict):
        for key, value in settings["security"].items():
            if key.endswith(("_file", "_cert", "_key")):
                text = expand(str(value), path, f"[security] {key}")
                settings["security"][key] = os.path.normpath(path.parent.resolve() / text)
    try:
        file = ClusterFile.model_validate(settings)
    except ValidationError as error:
        problems = dict.fromkeys(_complaint(dict(problem)) for problem in error.errors())
        raise InputError(f"{path}: {'; '.join(problems)}.") from None
    return file.model_copy(update={"arguments": _with_files(file.arguments, path.parent)})


def _complaint(problem: dict[str, Any]) -> str:
    """One thing that is wrong with a file."""
    name = ".".join(str(part) for part in problem["loc"])
    reason = str(problem["msg"]).removeprefix("Value error, ")
    if not name:
        return reason
    if problem["type"] == "extra_forbidden":
        known = [info.alias or key for key, info in ClusterFile.model_fields.items()]
        return f"it has no setting {name!r} ({nearest(name, known)})"
    if problem["type"] == "string_pattern_mismatch":
        reason = _EXPECTED[name]
    return f"{name} is {as_written(problem['input'])}: {reason[:1].lower()}{reason[1:]}"


def _with_files(arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put what a YAML file holds in place of each ``{ file = ... }``."""
    read = {}
    for key, value in arguments.items():
        read[key] = value
        if isinstance(value, dict) and value.keys() == {"file"}:
            path = folder / str(value["file"])
            try:
                text = path.read_text(encoding="utf-8").replace("${UUID}", uuid.uuid4().hex[:10])
                read[key] = yaml.safe_load(text)
            except (OSError, yaml.YAMLError) as error:
                raise InputError(f"{path}: the file of {key} cannot be read ({error}).") from error
    return read


def read_spec(spec: str) -> ClusterFile:
    """Return the settings of what ``--cluster`` may be."""
    if spec == "local":
        return ClusterFile.model_validate({})
    if re.search(ADDRESS, spec):
        return ClusterFile.model_validate({"address": spec, "wait": 60})
    if spec.endswith(".toml"):
        return load_spec(spec)
    raise InputError(
        f"the cluster {spec!r} is unknown: give local, a scheduler's address such as "
        "tcp://localhost:8786, or a TOML file such as deploy/slurm/cluster.toml."
    )
