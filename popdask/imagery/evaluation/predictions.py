"""Tables of predictions: one row per cell, from popdask or any other program.

A table has ``cell`` (a code or a number), ``prediction`` and ``truth`` (people), and ``presence``
(the probability that the cell is inhabited) where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from popdask.errors import InputError
from popdask.imagery.tables import read_table
from popdask.whole import Path_

COLUMNS = ("cell", "prediction", "truth")


def prediction_table(
    population: Any, truth: Any, presence: Any = None, *, cell: ArrayLike | None = None
) -> pd.DataFrame:
    """Put estimates and truth into a table, one row per cell that both know.

    Parameters
    ----------
    population, truth : array_like of float
        Estimated and true people per cell, of one shape, as rasters (y, x) or cells (cell,); a cell
        that is NaN in one of them is left out.
    presence : array_like of float, optional
        The probability that a cell is inhabited.
    cell : array_like, optional
        What the cells are called, of the same shape; by default their row-major index.

    Returns
    -------
    pandas.DataFrame
        ``cell``, ``prediction``, ``truth`` and, if given, ``presence``.

    Raises
    ------
    InputError
        If the shapes differ.

    Examples
    --------
    >>> prediction_table([[0.5, 3.0]], [[np.nan, 4.0]])
       cell  prediction  truth
    0     1         3.0    4.0
    """
    given = {"prediction": population, "truth": truth}
    given |= {} if presence is None else {"presence": presence}
    shape = np.shape(truth)
    names = np.arange(np.size(truth)).reshape(shape) if cell is None else np.asarray(cell)
    columns: dict[str, np.ndarray] = {"cell": names}
    columns |= {name: np.asarray(values, np.float64) for name, values in given.items()}
    if any(values.shape != shape for values in columns.values()):
        shapes = ", ".join(f"{name} has the shape {each.shape}" for name, each in columns.items())
        raise InputError(f"{shapes}; one shape was expected: give arrays of one grid")
    table = pd.DataFrame({name: values.ravel() for name, values in columns.items()})
    return table.dropna(ignore_index=True)


def read_predictions(path: Path_) -> pd.DataFrame:
    r"""Read a table of predictions, from any program.

    Parameters
    ----------
    path : path
        Parquet, where it is called .parquet or .pq, or else CSV, with the columns
        ``cell`` (a code or a number), ``prediction`` and ``truth`` (people), and perhaps
        ``presence`` (a probability). Others are ignored.

    Returns
    -------
    pandas.DataFrame
        These columns.

    Raises
    ------
    InputError
        If there is no such file or it cannot be read, a column is missing, a cell comes twice, or a
        number is missing, infinite or, as a truth, negative.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "others.csv")
    ...     _ = path.write_text("cell,prediction,truth\n100m_61397_6775,2.5,3\n")
    ...     read_predictions(path)
                  cell  prediction  truth
    0  100m_61397_6775         2.5      3
    """
    table = read_table(path, "a table of predictions")
    return _checked(table, Path(path).name)


def on_common_cells(
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame],
) -> dict[str, pd.DataFrame]:
    """Check tables of predictions, and reduce them to the cells that all of them have.

    Parameters
    ----------
    predictions : DataFrame, or mapping of them
        One row per cell; by the name of the model where there are several.

    Returns
    -------
    dict of DataFrame
        By model ("estimate" for a single table), indexed by cell, all in the order of the first.

    Raises
    ------
    InputError
        As `read_predictions`; and if two tables have no cell in common, or different truths.

    Examples
    --------
    >>> one = pd.DataFrame({"cell": ["a", "b"], "prediction": [1, 2], "truth": [0, 3]})
    >>> on_common_cells({"one": one, "other": one[1:]})["one"]
          prediction  truth
    cell
    b              2      3
    """
    if isinstance(predictions, pd.DataFrame):
        predictions = {"estimate": predictions}
    if not predictions:
        raise InputError("there are no predictions; at least one table was expected")
    tables = {name: _checked(table, name).set_index("cell") for name, table in predictions.items()}
    first, *others = tables
    common = tables[first].index
    for name in others:
        common = common.intersection(tables[name].index, sort=False)
    if not len(common):
        raise InputError(
            f"{' and '.join(tables)} have no cell in common; the same cells were expected, written "
            "in the same way: compare their column cell"
        )
    tables = {name: table.loc[common] for name, table in tables.items()}
    for name in others:
        _check_truth(first, tables[first]["truth"], name, tables[name]["truth"])
    return tables


def _checked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the columns that count of a table that makes sense."""
    if lacking := [column for column in COLUMNS if column not in table]:
        raise InputError(
            f"{name} has no column {' and no '.join(lacking)} but {', '.join(map(str, table))}; "
            "cell, prediction and truth were expected: rename its columns"
        )
    table = table[[*COLUMNS, *(["presence"] if "presence" in table else [])]]
    twice = table["cell"].duplicated()
    if twice.any():
        raise InputError(
            f"{name} has the cell {table['cell'][twice].iloc[0]} twice, and {twice.sum()} such "
            "rows; each cell was expected once: drop the double ones"
        )
    for column in table.columns[1:]:
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        wrong = ~np.isfinite(values) | ((values < 0) & (column == "truth"))
        if wrong.any():
            raise InputError(
                f"{name} has {wrong.sum()} cells whose {column} is not a number of people, the "
                f"first is {table['cell'][wrong].iloc[0]} with {table[column][wrong].iloc[0]}; "
                "finite numbers were expected, 0 or more as truth: leave those cells out"
            )
        if table[column].dtype.kind not in "iuf":  # numbers as text, or decimals of a database
            table = table.assign(**{str(column): values})
    return table


def _check_truth(first: str, one: pd.Series, name: str, other: pd.Series) -> None:
    differ = ~np.isclose(one, other, rtol=1e-6, atol=1e-6)
    if differ.any():
        raise InputError(
            f"{differ.sum()} cells have another truth in {name} than in {first}, the first is "
            f"{one.index[differ][0]} with {other[differ].iloc[0]:g} and {one[differ].iloc[0]:g}; "
            "the same people were expected: score them against one truth"
        )
