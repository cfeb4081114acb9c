"""The convolutional networks: whether anybody lives in a cell, and how many do.

After Sellebjerg, Lorentsen, Møller-Jensen, Siddique and Hansen, Population Estimation. Without
arguments they are that work's models of 100 m cells, to the number of parameters; every width can
be changed, so that small ones exist for small data.

A cell may be seen with a `ring` of pixels around it. The head then gets the pooled features of the
cell and, after them, those of the whole image: averages alone would not tell it which of the houses
stand inside.
"""

import torch
from torch import Tensor, nn

from popdask.errors import InputError
from popdask.imagery.models.network import Network, configuration


class PresenceCNN(Network):
    """Does anybody live in a cell? A convolutional classifier.

    Parameters
    ----------
    bands : int, optional
        Bands of the image.
    widths : tuple of int, optional
        Channels of the blocks; each block halves rows and columns.
    pool : int, optional
        The last feature map is averaged to `pool` × `pool`.
    hidden : tuple of int, optional
        Units between the feature map and the logit; dropout comes after the first.
    dropout : float, optional
        Share of hidden units left out in training.
    residual : bool, optional
        Add a block's input to its output (through a 1 × 1 convolution where widths differ).
    ring : int, optional
        Pixels around the cell on every side of the image.

    Notes
    -----
    4,483,873 parameters by default. ``forward``: (B, bands, rows, columns) → (B,), logits. The
    parts are ``features``, to (B, C, h, w), and ``head``, from there to (B, 1).

    Examples
    --------
    >>> from popdask.imagery.models import parameter_count
    >>> PresenceCNN(widths=(8, 16), hidden=(32,))(torch.zeros(3, 1, 50, 50)).shape
    torch.Size([3])
    >>> parameter_count(PresenceCNN())
    4483873
    """

    def __init__(
        self,
        bands: int = 1,
        widths: tuple[int, ...] = (32, 64, 128, 256, 256),
        pool: int = 4,
        hidden: tuple[int, ...] = (512, 64),
        dropout: float = 0.003,
        residual: bool = False,
        ring: int = 0,
    ) -> None:
        super().__init__()
        widths, hidden = tuple(widths), tuple(hidden)
        self.config = configuration(locals(), self)
        self.features = _features(bands, widths, double=True, bias=False, residual=residual)
        pooled = CellPool(pool, ring, reduction=2 ** len(widths))
        self.head = _head(pooled, pooled.length(widths[-1]), hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Give the logit of presence."""
        # (B, 1, 200, 200) → (B, 256, 6, 6) → (B, 256, 4, 4) → (B, 4096) → (B, 512) → (B, 64) → (B,)
        return self.head(self.features(x)).squeeze(1)


class CountCNN(Network):
    """How many people live in a cell? A family of convolutional regressors.

    Parameters
    ----------
    bands : int, optional
        Bands of the image.
    blocks : int, optional
        Blocks, each of which halves rows and columns.
    base, scale, cap : int, float, int, optional
        Block i has ``min(base · scale**i, cap)`` channels, at least 1.
    double : bool, optional
        Two convolutions in a block instead of one.
    hidden : int, optional
        Units between the averaged features and the count; dropout comes after them.
    extra : bool, optional
        Half as many units once more.
    dropout : float, optional
        Share of hidden units left out in training.
    residual : bool, optional
        Add a block's input to its output (through a 1 × 1 convolution where widths differ).
    ring : int, optional
        Pixels around the cell on every side of the image.

    Notes
    -----
    9,574,081 parameters by default, for 100 m cells; ``CountCNN(blocks=4, base=32, extra=False,
    dropout=0.3)`` has 1,239,649, for 300 m cells. ``forward``: (B, bands, rows, columns) → (B,),
    people. The parts are ``features``, to (B, C, h, w), and ``head``, from there to (B, 1).

    Examples
    --------
    >>> from popdask.imagery.models import parameter_count
    >>> CountCNN(blocks=2, base=8, hidden=16)(torch.zeros(3, 1, 50, 50)).shape
    torch.Size([3])
    >>> parameter_count(CountCNN()), parameter_count(CountCNN(blocks=4, base=32, extra=False))
    (9574081, 1239649)
    """

    def __init__(
        self,
        bands: int = 1,
        blocks: int = 5,
        base: int = 64,
        scale: float = 2.0,
        cap: int = 512,
        double: bool = True,
        hidden: int = 256,
        extra: bool = True,
        dropout: float = 0.27,
        residual: bool = False,
        ring: int = 0,
    ) -> None:
        super().__init__()
        self.config = configuration(locals(), self)
        widths = tuple(max(1, min(round(base * scale**i), cap)) for i in range(blocks))
        self.features = _features(bands, widths, double=double, bias=True, residual=residual)
        pooled = CellPool(1, ring, reduction=2**blocks)
        units = (hidden, hidden // 2) if extra else (hidden,)
        self.head = _head(pooled, pooled.length(widths[-1]), units, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Give the number of people; below 0 for some empty cells."""
        # (B, 1, 200, 200) → (B, 512, 6, 6) → (B, 512) → (B, 256) → (B, 128) → (B,)
        return self.head(self.features(x)).squeeze(1)


class Block(nn.Module):
    """Convolutions 3 × 3, each with batch norm and ReLU, then the maximum of 2 × 2."""

    def __init__(self, into: int, out: int, *, double: bool, bias: bool, residual: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (into, out)[: 1 + double]:
            layers += [nn.Conv2d(channels, out, 3, padding=1, bias=bias), nn.BatchNorm2d(out)]
            layers += [nn.ReLU(inplace=True)]
        last = layers.pop()
        self.convolve = nn.Sequential(*layers)
        self.skip: nn.Module | None = None
        if residual:
            self.skip = nn.Identity() if into == out else nn.Conv2d(into, out, 1, bias=False)
        self.close = nn.Sequential(last, nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        """Pass (B, into, h, w) to (B, out, h / 2, w / 2)."""
        y = self.convolve(x)
        return self.close(y if self.skip is None else y + self.skip(x))


class CellPool(nn.Module):
    """Average feature maps (B, C, h, w) to `size` × `size`: of the cell, and of all with its ring.

    Without a ring the two are the same and taken once.
    """

    def __init__(self, size: int, ring: int, reduction: int) -> None:
        super().__init__()
        self.size, self.rim = size, round(ring / reduction)
        if ring < 0 or (ring > 0 and self.rim == 0):
            raise InputError(
                f"ring is {ring} pixels, expected 0 or at least {reduction // 2 + 1}, what the "
                "feature map can tell apart; widen the ring or use fewer blocks"
            )

    def length(self, channels: int) -> int:
        """Features per cell."""
        return channels * self.size**2 * (2 if self.rim else 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pass (B, C, h, w) to (B, features)."""
        pooled = nn.functional.adaptive_avg_pool2d(x, self.size).flatten(1)
        if not self.rim:
            return pooled
        rim = min(self.rim, (x.shape[-1] - 1) // 2)  # of a coarse map, the middle is left
        cell = x[:, :, rim : x.shape[2] - rim, rim : x.shape[3] - rim]
        inner = nn.functional.adaptive_avg_pool2d(cell, self.size).flatten(1)
        return torch.cat([inner, pooled], dim=1)


def _features(
    bands: int, widths: tuple[int, ...], *, double: bool, bias: bool, residual: bool
) -> nn.Sequential:
    pairs = zip((bands, *widths), widths, strict=False)
    return nn.Sequential(
        *(Block(*pair, double=double, bias=bias, residual=residual) for pair in pairs)
    )


def _head(pool: CellPool, length: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Dense layers from pooled features to one value, with dropout after the first."""
    layers: list[nn.Module] = [pool]
    for i, units in enumerate(hidden):
        layers += [nn.Linear(length, units), nn.ReLU(inplace=True)]
        layers += [nn.Dropout(dropout)] if i == 0 else []
        length = units
    return nn.Sequential(*layers, nn.Linear(length, 1))
