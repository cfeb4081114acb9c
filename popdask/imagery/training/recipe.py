"""The settings of a training, and those that were published.

Sellebjerg, Lorentsen, Møller-Jensen, Siddique and Hansen, Population Estimation, trained on grey
orthophotos of 0.5 m, on cells of 100 m and of 300 m. `TrainingConfig.preset` has their settings.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from popdask.errors import InputError
from popdask.imagery.models import KINDS, build

OPTIMIZERS = ("adam", "adamw")
FLIPS = ("none", "horizontal", "both")
NORMALISATIONS = ("half", "bands")


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained.

    Examples
    --------
    >>> TrainingConfig.preset("count", "300m").batch_size
    16
    """

    network: Mapping[str, Any] = field(default_factory=dict)
    """Name of the network, under "network", and its arguments; what is left out is the kind's."""
    epochs: int = 50
    """At most."""
    batch_size: int = 64
    """Cells per step; halved where memory runs out."""
    rate: float = 1e-4
    """Learning rate at the start."""
    weight_decay: float = 0.0
    optimizer: str = "adamw"
    """"adam" or "adamw"."""
    flips: str = "horizontal"
    """"none", "horizontal" (east and west change places) or "both" (north and south too)."""
    jitter: float = 0.2
    """Brightness and contrast are each multiplied by up to 1 ± this much."""
    normalise: str = "half"
    """"half": [0, white] to [−1, 1]; "bands": each band by its mean and standard deviation."""
    white: float | None = None
    """The brightest value; that of the images' type by default (1 for floats)."""
    balance: float = 0.0
    """0 draws cells as they come, 1 every bin of people equally often; between them by a power."""
    bins: int = 10
    """Equal-width bins of people; cells without anybody are one more."""
    patience: int = 5
    """Epochs without a better validation loss, after which the rate is multiplied by `factor`."""
    factor: float = 0.5
    stop_after: int = 15
    """Epochs without a better validation loss, after which training ends."""
    threads: int | None = None
    """Of torch on the CPU; all cores at hand by default. The result depends on it."""
    memory: int = 2**31
    """Bytes of images to hold; more are read from their store again in every epoch."""
    seed: int = 0
    """Of the initial weights, the order of the cells, augmentation and dropout."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("optimizer", OPTIMIZERS),
            ("flips", FLIPS),
            ("normalise", NORMALISATIONS),
        ):
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}"
                )
        for name in ("epochs", "batch_size", "bins", "patience", "stop_after", "memory"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name, low, high in (
            ("rate", 0.0, 1.0),
            ("weight_decay", 0.0, 1.0),
            ("jitter", 0.0, 1.0),
            ("balance", 0.0, 1.0),
            ("factor", 0.0, 1.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} is {getattr(self, name)}, expected {low} to {high}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}, expected a whole number, 0 or more; correct it")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}, expected at least 1, or none for all")

    @classmethod
    def preset(cls, kind: str, cells: str = "100m", **changes: Any) -> "TrainingConfig":
        """Give the published settings of a kind of model.

        Parameters
        ----------
        kind : str
            "presence", "count", "transformer" or "weighted" (not published: those of the count).
        cells : {"100m", "300m"}, optional
            For which cells they were found.
        **changes
            Settings to be replaced.

        Raises
        ------
        InputError
            If there is no such kind, size or setting.
        """
        if kind not in KINDS or cells not in ("100m", "300m"):
            raise InputError(
                f"there are no settings of {kind!r} for {cells!r}, expected one of "
                f"{', '.join(KINDS)} for 100m or 300m"
            )
        if unknown := set(changes) - set(cls.__dataclass_fields__):
            raise InputError(
                f"training has no setting {', '.join(sorted(unknown))}; expected some of "
                f"{', '.join(cls.__dataclass_fields__)}"
            )
        return replace(_PUBLISHED[kind, cells], **changes)

    def network_for(self, kind: str, *, bands: int, pixels: int, ring: int) -> dict[str, Any]:
        """Complete the network's configuration by what the cells and the kind of model say.

        Raises
        ------
        InputError
            If there is no such network, it cannot be built, or the cells have too few pixels.
        """
        name = self.network.get("network", _NETWORK_OF[kind])
        seen = {"pixels": pixels} if name == "PopulationViT" else {"ring": ring}
        config = {"network": name, "bands": bands, **seen, **self.network}
        with torch.device("meta"):
            network = build(config)
        least = 2 ** len(getattr(network, "features", ()))
        if pixels < least:
            raise InputError(
                f"the cells have {pixels} x {pixels} pixels, expected at least {least} for the "
                f"blocks of {name}, each of which halves them; use fewer blocks or smaller pixels"
            )
        return config

    def as_dict(self) -> dict[str, Any]:
        """Give the settings as plain data."""
        return asdict(self)


_NETWORK_OF = {
    "presence": "PresenceCNN",
    "count": "CountCNN",
    "transformer": "PopulationViT",
    "weighted": "CountCNN",
}

_COUNT_100M = TrainingConfig(batch_size=32, rate=9.18e-5, weight_decay=4e-4)
_COUNT_300M = TrainingConfig(
    network={"network": "CountCNN", "blocks": 4, "base": 32, "extra": False, "dropout": 0.3},
    batch_size=16,
    rate=3e-4,
    weight_decay=1e-4,
)
_PRESENCE = TrainingConfig(rate=8.59e-5, weight_decay=1.7e-4, optimizer="adam")
_TRANSFORMER = TrainingConfig(batch_size=16, balance=1.0)
_PUBLISHED = {
    ("presence", "100m"): _PRESENCE,
    ("presence", "300m"): replace(_PRESENCE, network={"network": "PresenceCNN", "dropout": 0.183}),
    ("count", "100m"): _COUNT_100M,
    ("count", "300m"): _COUNT_300M,
    ("transformer", "100m"): _TRANSFORMER,
    ("transformer", "300m"): _TRANSFORMER,
    ("weighted", "100m"): replace(_COUNT_100M, balance=0.5),
    ("weighted", "300m"): replace(_COUNT_300M, balance=0.5),
}
