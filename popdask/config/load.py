"""Files of settings: TOML with variables, read for job files and cluster files alike.

A wrong setting is an error in the words of the file: its table, its name, and what was expected.

A cluster file names a cluster class of Dask with its own keyword arguments: ``[arguments]`` go to
the class as they are. A table ``{ file = "cluster.yaml" }`` among them stands for what that YAML
file holds, where ``${UUID}`` is another in each run.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from popdask.config.jobs import CommunitiesJob, PopulationJob, ScenesJob, SettlementsJob
from popdask.config.settings import Job, Place, Settings
from popdask.errors import InputError
from popdask.io.paths import rebased

_VARIABLE = re.compile(r"\$\{(\w+)\}")
#: Settings that had another name before.
RENAMED: Mapping[str, str] = {"absent": "missing"}
#: The kinds of job, by pipeline.
JOBS: Mapping[str, type[Job]] = {
    "communities": CommunitiesJob,
    "population": PopulationJob,
    "scenes": ScenesJob,
    "settlements": SettlementsJob,
}

#: What texts and numbers that cannot be read were expected to be, by setting or kind of problem.
_EXPECTED: Mapping[str, str] = {
    "name": "expected letters, digits, _, . and -, not dots alone",
    "device": "expected auto, cpu, mps, cuda, or a card such as cuda:1",
    "class": "expected local, or a class in its module such as dask_jobqueue.SLURMCluster",
    "address": "expected the address of a scheduler such as tcp://host:8786",
    "float_parsing": "expected a number",
    "int_parsing": "expected a whole number",
    "tuple_type": "input should be a list",
    "dict_type": "input should be a table",
    "model_type": "input should be a table",
}
_LONGEST = 255  # bytes of a name, on the file systems that there are
#: The address of a scheduler.
ADDRESS = r"^(tcp|tls)://\S+:\d{1,5}$"


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # which may never end
            raise InputError(f"{path}: the {what} is a pipe or a device: write it into a file.")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such {what}; check the path.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the {what} is not written in UTF-8: save it so.") from error
    except OSError as error:
        raise InputError(f"{path}: the {what} cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: the {what} is not valid TOML: {error}.") from error


def expand(text: str, path: Path, setting: str) -> str:
    """Replace ``${VARIABLES}`` by what the environment says."""

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], "")
        if not found:
            raise InputError(
                f"{path}: {setting} uses ${{{match[1]}}}, which is not set: "
                f"export {match[1]}=... before the run."
            )
        return found

    return _VARIABLE.sub(value, text)


def table_of(field: FieldInfo | None) -> type[BaseModel] | None:
    """Return the model of a field that is a table, or some; None for a single value."""
    annotation = field.annotation if field else None
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def nearest(name: str, known: Sequence[str]) -> str:
    """Offer the known name that is nearest to a wrong one, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def as_written(value: Any) -> str:
    """Write a value as it stands in a file of settings, so that a text shows its quotes."""
    return json.dumps(value, ensure_ascii=False, default=str)


def load_job(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Job:
    """Read a job file.

    Parameters
    ----------
    path
        The TOML file.
    overrides
        Settings that replace those of the file, by dotted name, such as
        ``{"output.store": "out/test.icechunk"}``; paths in them are used as they are.

    Returns
    -------
    Job
        The settings, with paths made absolute and variables expanded.

    Raises
    ------
    InputError
        If the file is missing, is not TOML, or has a setting that is unknown or out of range.

    Examples
    --------
    >>> import tempfile
    >>> text = '''
    ... name = "oslo"
    ... input.frames = "pop_{year}.tif"
    ... output.store = "oslo.icechunk"
    ... '''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     length = Path(folder, "oslo.toml").write_text(text)
    ...     job = load_job(f"{folder}/oslo.toml", {"classes.k": "auto"})
    >>> job.classes.k, job.encoder.epochs, Path(job.input.frames).name
    ('auto', 200, 'pop_{year}.tif')
    """
    tables: dict[str, Any] = {}
    for name, value in (overrides or {}).items():
        *above, key = name.split(".")
        _merge(tables, reduce(lambda inner, table: {table: inner}, reversed(above), {key: value}))
    return _read_job(Path(path), tables)


def load_job_with(path: str | Path, assignments: Sequence[str]) -> Job:
    """Read a job file, with settings that a command line gives in place of the file's."""
    tables: dict[str, Any] = {}
    for assignment in assignments:
        _merge(tables, _assigned(assignment))
    return _read_job(Path(path), tables, base=Path("--set"))


def _read_job(path: Path, overrides: dict[str, Any], base: Path | None = None) -> Job:
    """Read and check a file; paths in the overrides are relative to that of `base`, if given."""
    tables = read_toml(path, "job file")
    model = _model(tables | overrides, path)
    _resolve(tables, model, path)
    if base is not None:
        _resolve(overrides, model, base)
    _merge(tables, overrides)
    try:
        return model.model_validate(tables)
    except ValidationError as error:
        raise InputError(f"{path}: {_sentence(error, model)}") from None


def _assigned(text: str) -> dict[str, Any]:
    """Read ``table.name=value`` as TOML; a value that is none is a text whose quotes are gone."""
    name, equals, value = text.partition("=")
    for written in (text, f"{name} = {json.dumps(value.strip())}"):
        try:
            tables = tomllib.loads(written)
        except tomllib.TOMLDecodeError:
            continue
        if tables and equals:
            return tables
    raise InputError(
        f"--set {text!r} sets nothing; expected a setting and its value such as classes.k=6; "
        "correct it"
    )


def _merge(tables: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Put settings in place of others, in place; tables are gone into."""
    for key, value in overrides.items():
        held = tables.get(key)
        if isinstance(held, dict) and isinstance(value, dict):
            _merge(held, value)
        else:
            tables[key] = value


def setting_names(begin: str = "") -> list[str]:
    """List the settings of every kind of job that begin so, as a shell completes them."""
    names = dict.fromkeys(f"{name}=" for pipeline in JOBS for name in settings_of(pipeline))
    return [name for name in names if name.startswith(begin)]


def settings_of(pipeline: str) -> list[str]:
    """List the settings of a kind of job, by dotted name."""
    return list(_names_in(JOBS[pipeline]))


def _names_in(model: type[BaseModel], *above: str) -> Iterator[str]:
    for key, field in model.model_fields.items():
        table = table_of(field)
        if table is None:
            yield ".".join((*above, key))
        else:
            yield from _names_in(table, *above, key)


def _model(tables: Mapping[str, Any], path: Path) -> type[Job]:
    """The kind of job that a file describes."""
    pipeline = tables.get("pipeline", "communities")
    if not isinstance(pipeline, str) or pipeline not in JOBS:
        known = ", ".join(map(as_written, JOBS))
        raise InputError(f"{path}: pipeline is {as_written(pipeline)}: expected one of {known}.")
    return JOBS[pipeline]


def _resolve(tables: dict[str, Any], model: type[BaseModel], path: Path, *above: str) -> None:
    """Expand variables in the paths and make them absolute, in place."""
    for key, field in model.model_fields.items():
        value, table = tables.get(key), table_of(field)
        if table is not None:
            for row in value if isinstance(value, list) else [value]:
                if isinstance(row, dict):
                    _resolve(row, table, path, *above, key)
        elif _is_place(field) and isinstance(value, str) and value not in _words(field):
            tables[key] = _absolute(value, path, _setting((*above, key)))
        elif _is_place(field) and isinstance(value, list):
            tables[key] = [
                _absolute(one, path, _setting((*above, key))) if isinstance(one, str) else one
                for one in value
            ]


def _words(field: FieldInfo) -> set[Any]:
    """The words that a field takes for what they are, beside paths."""
    literals = (kind for kind in get_args(field.annotation) if get_origin(kind) is Literal)
    return {word for kind in literals for word in get_args(kind)}


def _is_place(field: FieldInfo) -> bool:
    def marked(kind: Any) -> bool:
        return any(isinstance(part, Place) or marked(part) for part in get_args(kind))

    return any(isinstance(part, Place) for part in field.metadata) or marked(field.annotation)


def _absolute(value: str, path: Path, setting: str) -> str:
    text = expand(value, path, setting)
    if "://" in text:
        return text
    folder = path.parent.resolve()
    home = text.startswith("~/")  # as a shell reads it
    place = rebased(str(Path(text).expanduser()) if home else text, folder)
    if "\0" in place or any(len(os.fsencode(part)) > _LONGEST for part in place.split("/")):
        raise InputError(
            f"{path}: {setting} is {text!r}, which no file can be called: expected names of at "
            f"most {_LONGEST} bytes, none of them NUL."
        )
    if re.search("[{*]", text) and any(place.count(mark) > text.count(mark) for mark in "{}*"):
        raise InputError(
            f"{path}: {setting} is the pattern {text!r}, but the folder {folder} has braces or a "
            "star in its name, which would be read as a part of it: rename the folder."
        )
    return place


def _setting(names: Sequence[str]) -> str:
    """How a message names a setting: ``[table] key``."""
    *tables, key = names
    return f"[{'.'.join(tables)}] {key}" if tables else key


def _sentence(error: ValidationError, model: type[Settings]) -> str:
    """All that is wrong with a file of settings, as one sentence."""
    complaints: dict[str, list[str]] = {}  # of a setting that may be of several kinds, one each
    for problem in error.errors():
        place, reason = _complaint(dict(problem), model)
        complaints.setdefault(place, []).append(reason)
    told = (place + ", or ".join(dict.fromkeys(reasons)) for place, reasons in complaints.items())
    return "; ".join(told).replace(", or input should be ", ", or ") + "."


def _complaint(problem: dict[str, Any], model: type[Settings]) -> tuple[str, str]:
    """Which setting is wrong, with its value, and what was expected."""
    if problem["type"] == "extra_forbidden":
        *tables, unknown = map(str, problem["loc"])
        return _unknown_setting(tables, unknown, model), ""
    reason = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return "", reason
    names, inner = _within(problem["loc"], model)
    if problem["type"] == "missing" and not isinstance(problem["loc"][-1], int):
        needed = [name for name, field in inner.items() if field.is_required()]  # of a table
        return f"the setting {'.'.join([*names, *needed[:1]])} is missing", ""
    if problem["type"] == "missing":
        reason = "a value is missing"
    place = f"{_setting(names)} is {as_written(problem['input'])}: "
    kind = names[-1] if problem["type"] == "string_pattern_mismatch" else problem["type"]
    return place, _EXPECTED.get(kind, f"{reason[:1].lower()}{reason[1:]}")


def _within(
    location: Sequence[Any], model: type[BaseModel]
) -> tuple[list[str], dict[str, FieldInfo]]:
    """The names in the place of a problem, without what unions add, and the settings below it."""
    names, fields = list[str](), _fields(model)
    free = False  # within a table whose names are not ours
    for part in location:
        if free or part in fields:
            names.append(str(part))
            field = fields.get(part)
            free = field is not None and get_origin(field.annotation) is dict
            fields = _fields(table_of(field))
    return names, fields


def _fields(model: type[BaseModel] | None) -> dict[str, FieldInfo]:
    """The settings of a table, by the names that a file has for them."""
    held = model.model_fields if model else {}
    return {field.alias or name: field for name, field in held.items()}


def _unknown_setting(tables: Sequence[str], name: str, model: type[Settings]) -> str:
    _, fields = _within(tables, model)
    now = RENAMED.get(name)
    hint = f"it is {now!r} now" if now in fields else nearest(name, list(fields))
    whole = "a job" if issubclass(model, Job) else "it"
    where = f"[{'.'.join(tables)}]" if tables else whole
    return f"{where} has no setting {name!r} ({hint})"


def _seconds(value: Any) -> int:
    from dask.utils import parse_timedelta

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
    >>> from popdask.config.load import load_spec
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
        raise InputError(f"{path}: {_sentence(error, ClusterFile)}") from None
    return file.model_copy(update={"arguments": _with_files(file.arguments, path.parent)})


def _with_files(arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put what a YAML file holds in place of each ``{ file = ... }``."""
    import yaml  # type: ignore[import-untyped]

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
