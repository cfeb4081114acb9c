"""TOML files of several kinds, each checked against the model of its kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from popdask.config.load import expand, nearest, read_toml, table_of
from popdask.errors import InputError

M = TypeVar("M", bound=BaseModel)
#: A worker's shell expands the variables in these.
_FOR_THE_SHELL = {"scratch", "directives", "prologue"}


def load_settings(path: str | Path, kinds: Mapping[str, type[M]]) -> M:
    """Read a TOML file whose setting ``kind`` says which model it follows.

    Parameters
    ----------
    path
        The file.
    kinds
        The model of each kind; a field annotated with ``"path"`` is a path relative to the file.

    Raises
    ------
    InputError
        If the file is missing, is not TOML, or has a setting that is unknown or out of range.
    """
    path = Path(path)
    tables = read_toml(path, "cluster file")
    kind = tables.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(f"{path}: {_unknown_kind(kind, kinds)}.")
    model = kinds[kind]
    _resolve(tables, model, path)
    try:
        return model.model_validate(tables)
    except ValidationError as error:
        problems = dict.fromkeys(_complaint(dict(found), model) for found in error.errors())
        raise InputError(f"{path}: {'; '.join(problems)}.") from None


def _resolve(tables: dict[str, Any], model: type[BaseModel], path: Path) -> None:
    """Expand variables and make paths absolute, in place."""
    for key, value in tables.items():
        field = model.model_fields.get(key)
        if isinstance(value, dict):
            _resolve(value, table_of(field) or BaseModel, path)
        elif isinstance(value, str) and key not in _FOR_THE_SHELL:
            tables[key] = expand(value, path, key)
            if field is not None and _is_path(field):
                tables[key] = os.path.normpath(path.parent.resolve() / tables[key])


def _is_path(field: FieldInfo) -> bool:
    inner = [value for part in get_args(field.annotation) for value in get_args(part)]
    return "path" in [*field.metadata, *inner]


def _unknown_kind(kind: object, kinds: Iterable[str]) -> str:
    known = ", ".join(kinds)
    if kind is None:
        return f"the setting kind is missing: give one of {known}"
    return f"the kind {kind!r} is unknown ({nearest(str(kind), list(kinds))})"


def _complaint(problem: dict[str, Any], model: type[BaseModel]) -> str:
    """One thing that is wrong with the settings."""
    names = [part for part in problem["loc"] if isinstance(part, str)]
    reason = str(problem["msg"]).removeprefix("Value error, ")
    if reason.startswith("["):  # the sentence of a rule over a whole table
        return reason
    if problem["type"] == "extra_forbidden":
        table = table_of(model.model_fields.get(names[0])) if len(names) > 1 else model
        where = f"[{names[0]}] has" if len(names) > 1 else "it has"
        return f"{where} no setting {names[-1]!r} ({nearest(names[-1], list(_names(table)))})"
    setting = f"[{names[0]}] {names[1]}" if len(names) > 1 else names[0]
    if problem["type"] == "missing":
        return f"the setting {setting} is missing"
    return f"{setting} is {problem['input']!r}: {reason[:1].lower()}{reason[1:]}"


def _names(model: type[BaseModel] | None) -> Iterable[str]:
    return model.model_fields if model else ()
