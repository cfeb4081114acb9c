"""Files of settings: TOML with variables, read for job files and cluster files alike."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from popdask.errors import InputError

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    path
        The file.
    what
        What it is called in an error, such as ``"job file"``.

    Raises
    ------
    InputError
        If it is missing, cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such {what}; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the {what} cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: the {what} is not valid TOML: {error}.") from error


def expand(text: str, path: Path, setting: str) -> str:
    """Replace ``${VARIABLES}`` by what the environment says.

    Parameters
    ----------
    text
        The value of a setting.
    path, setting
        Its file and name, for an error.

    Raises
    ------
    InputError
        If a variable is not set.
    """

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
    """Give the model of a field that is a table, or may be one; None for a single value."""
    annotation = field.annotation if field else None
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def nearest(name: str, known: Sequence[str]) -> str:
    """Offer the known name that is nearest to a wrong one, or all of them.

    Examples
    --------
    >>> nearest("alpa", ["alpha", "iterations"])
    "did you mean 'alpha'?"
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
