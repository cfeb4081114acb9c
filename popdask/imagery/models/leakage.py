"""Whether a model is judged by cells that it learned from."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from popdask.imagery.models.trained import TrainedModel


class LeakageWarning(UserWarning):
    """A model is evaluated on cells that it learned from."""


def check_leakage(
    model: TrainedModel, north: ArrayLike, east: ArrayLike, *, cell_size: float | None = None
) -> int:
    """Warn where cells that are being evaluated were trained on.

    Parameters
    ----------
    model : TrainedModel
    north, east : array_like of int, (n,)
        Lower-left corners of the cells, in units of their size.
    cell_size : float, optional
        Their size, if it is not the model's: then cells are the same where they overlap.

    Returns
    -------
    int
        How many of the cells were trained on.

    Warns
    -----
    LeakageWarning
        If there are any.

    Examples
    --------
    >>> from popdask.imagery.models.trained import TrainedModel
    >>> network = {"network": "CountCNN", "blocks": 1, "base": 4}
    >>> model = TrainedModel.untrained("count", network, pixels=8)
    >>> check_leakage(model, [61397], [6775])
    0
    """
    ratio = cell_size / model.cell_size if cell_size else 1.0
    evaluated = np.stack([np.asarray(north), np.asarray(east)], axis=1).astype(np.int64)
    trained = model.training_cells
    if ratio > 1:  # the centres of small cells, counted in large ones
        trained = np.floor((trained + 0.5) / ratio).astype(np.int64)
    looked_for = np.floor((evaluated + 0.5) * min(ratio, 1.0)).astype(np.int64)
    known = set(map(tuple, trained.tolist()))
    leaked = sum(tuple(cell) in known for cell in looked_for.tolist())
    if leaked:
        warnings.warn(
            f"leakage: {leaked} of the {len(evaluated)} cells being evaluated were trained on; "
            "evaluate on the validation cells of the split that the model was trained with",
            LeakageWarning,
            stacklevel=2,
        )
    return leaked
