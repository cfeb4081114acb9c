"""TOML files of several kinds, each checked against the model of its kind."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from popdask.errors import InputError

M = TypeVar("M", bound=BaseModel)
_VARIABLE = re.compile(r"\$\{(\w+)\}")
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
    tables = _read(path)
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


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such cluster file; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the cluster file cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: the cluster file is not valid TOML: {error}.") from error


def _resolve(tables: dict[str, Any], model: type[BaseModel], path: Path) -> None:
    """Expand variables and make paths absolute, in place."""
    for key, value in tables.items():
        field = model.model_fields.get(key)
        if isinstance(value, dict):
            _resolve(value, _table(field) or BaseModel, path)
        elif isinstance(value, str) and key not in _FOR_THE_SHELL:
            tables[key] = _expand(value, path, key)
            if field is not None and _is_path(field):
                tables[key] = os.path.normpath(path.parent.resolve() / tables[key])


def _is_path(field: FieldInfo) -> bool:
    inner = [value for part in get_args(field.annotation) for value in get_args(part)]
    return "path" in [*field.metadata, *inner]


def _table(field: FieldInfo | None) -> type[BaseModel] | None:
    """The model of a field that is a table, or may be one."""
    annotation = field.annotation if field else None
    for found in (annotation, *get_args(annotation)):
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return None


def _expand(text: str, path: Path, setting: str) -> str:
    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], "")
        if not found:
            raise InputError(
                f"{path}: {setting} uses ${{{match[1]}}}, which is not set: "
                f"export {match[1]}=... before the run."
            )
        return found

    return _VARIABLE.sub(value, text)


def _unknown_kind(kind: object, kinds: Iterable[str]) -> str:
    known = ", ".join(kinds)
    if kind is None:
        return f"the setting kind is missing: give one of {known}"
    return f"the kind {kind!r} is unknown ({_nearest(str(kind), list(kinds))})"


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def _complaint(problem: dict[str, Any], model: type[BaseModel]) -> str:
    """One thing that is wrong with the settings."""
    names = [part for part in problem["loc"] if isinstance(part, str)]
    reason = str(problem["msg"]).removeprefix("Value error, ")
    if reason.startswith("["):  # the sentence of a rule over a whole table
        return reason
    if problem["type"] == "extra_forbidden":
        table = _table(model.model_fields.get(names[0])) if len(names) > 1 else model
        where = f"[{names[0]}] has" if len(names) > 1 else "it has"
        return f"{where} no setting {names[-1]!r} ({_nearest(names[-1], list(_names(table)))})"
    setting = f"[{names[0]}] {names[1]}" if len(names) > 1 else names[0]
    if problem["type"] == "missing":
        return f"the setting {setting} is missing"
    return f"{setting} is {problem['input']!r}: {reason[:1].lower()}{reason[1:]}"


def _names(model: type[BaseModel] | None) -> Iterable[str]:
    return model.model_fields if model else ()
