"""The networks: what they share, the two of convolutions, and the transformer.

An image is (B, bands, rows, columns), normalised; forward gives one value per cell, (B,).

After Sellebjerg, Lorentsen, Møller-Jensen, Siddique and Hansen, Population Estimation. Without
arguments the two of convolutions are that work's models of 100 m cells, and the transformer is its
model of 300 m cells, to the number of parameters; every width can be changed, so that small ones
exist for small data.

Networks of convolutions may see a cell with a `ring` of pixels around it. The head then gets the
pooled features of the cell and, after them, those of the whole image: averages alone would not tell
it which of the houses stand inside.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from popdask.errors import InputError


class Network(nn.Module):
    """What the networks here have in common.

    Examples
    --------
    >>> isinstance(CountCNN(base=8), Network)
    True
    """

    config: dict[str, Any]
    """The name of the network, under "network", and the arguments that it was built with."""


def parameter_count(module: nn.Module) -> int:
    """Count the trainable parameters of a network."""
    return sum(p.numel() for p in module.parameters())


def configuration(arguments: Mapping[str, Any], module: nn.Module) -> dict[str, Any]:
    """Take a constructor's arguments from its locals, as plain data; refuse impossible ones."""
    plain = {k: v for k, v in arguments.items() if k not in ("self", "__class__")}
    name = type(module).__name__
    for key, value in plain.items():
        _check_argument(name, key, value)
    return {"network": name, **plain}


def _check_argument(network: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or name == "ring":
        return
    if name == "dropout":
        fits, expected = 0 <= value <= 1, "a share from 0 to 1"
    elif name == "scale":
        fits, expected = value > 0, "a number above 0"
    elif isinstance(value, tuple):
        fits = all(part >= 1 for part in value) and (name != "widths" or len(value) > 0)
        expected = "numbers of at least 1"
    else:
        fits, expected = value >= 1, "at least 1"
    if not fits:
        raise InputError(f"{name} of {network} is {value}, expected {expected}; correct it")


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
    >>> from popdask.imagery.networks import parameter_count
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
        """Return the logit of presence."""
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
    >>> from popdask.imagery.networks import parameter_count
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
        """Return the number of people; below 0 for some empty cells."""
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


def fused(network: Network) -> Network:
    """Copy a network for answers alone: batch norms folded into the convolutions before them."""
    copy = deepcopy(network).eval()  # whoever trained it last: only such norms can be folded
    for block in copy.modules():
        if isinstance(block, Block):
            layers = list[nn.Module]()
            for layer in block.convolve:
                if isinstance(layer, nn.BatchNorm2d):
                    layers[-1] = fuse_conv_bn_eval(cast(nn.Conv2d, layers[-1]), layer)
                else:
                    layers.append(layer)
            block.convolve = nn.Sequential(*layers)
    copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copy


class CellPool(nn.Module):
    """Average feature maps (B, C, h, w) to `size` × `size`: the cell, and all with its ring."""

    def __init__(self, size: int, ring: int, reduction: int) -> None:
        super().__init__()
        self.size, self.rim = size, round(ring / reduction)
        if ring < 0 or (ring > 0 and self.rim == 0):
            raise InputError(
                f"ring is {ring} pixels, expected 0 or at least {reduction // 2 + 1}, what the "
                "feature map can distinguish; widen the ring or use fewer blocks"
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


class LastLayer(nn.Linear):
    """In float32, whatever goes before: bfloat16 has no number between 4992 and 5024."""

    def forward(self, x: Tensor) -> Tensor:
        """Pass (B, features) to (B, 1)."""
        if x.is_meta:  # whose operations are counted, and which autocast does not know
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def _head(pool: CellPool, length: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Dense layers from pooled features to one value, with dropout after the first."""
    layers: list[nn.Module] = [pool]
    for i, units in enumerate(hidden):
        layers += [nn.Linear(length, units), nn.ReLU(inplace=True)]
        layers += [nn.Dropout(dropout)] if i == 0 else []
        length = units
    return nn.Sequential(*layers, LastLayer(length, 1))


class PopulationViT(Network):
    """How many people live in a cell? A vision transformer.

    Parameters
    ----------
    bands : int, optional
        Bands of the image.
    pixels : int, optional
        Rows and columns of the image, a multiple of `patch`.
    patch : int, optional
        Rows and columns of a patch.
    width : int, optional
        Length of a patch's code, a multiple of `heads`.
    layers, heads : int, optional
        Transformer layers, and attention heads in each.
    expansion : int, optional
        Units of a layer's dense part, in widths.
    dropout : float, optional
        Share left out in training: of codes, of attention and of units.

    Notes
    -----
    2,919,937 parameters by default. ``forward``: (B, bands, pixels, pixels) → (B,),
    log(1 + people). Layers are pre-norm, positions are learned, and the answer is read from the
    class token. It sees where things are, so a ring around the cell needs no setting.

    Examples
    --------
    >>> from popdask.imagery.networks import parameter_count
    >>> PopulationViT(pixels=40, width=24, layers=2)(torch.zeros(3, 1, 40, 40)).shape
    torch.Size([3])
    >>> parameter_count(PopulationViT())
    2919937
    """

    def __init__(
        self,
        bands: int = 1,
        pixels: int = 600,
        patch: int = 20,
        width: int = 192,
        layers: int = 6,
        heads: int = 3,
        expansion: int = 4,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.config = configuration(locals(), self)
        if pixels % patch or width % heads:
            raise InputError(
                f"the transformer has {pixels} pixels in patches of {patch} and width {width} for "
                f"{heads} heads, expected multiples; change patch or width"
            )
        self.patches = nn.Conv2d(bands, width, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, (pixels // patch) ** 2 + 1, width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(
            *(TransformerLayer(width, heads, expansion, dropout) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(LastLayer(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return log(1 + people)."""
        x = self.patches(x).flatten(2).transpose(1, 2)  # (B, 1, 600, 600) → (B, 900, 192)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        x = self.layers(self.dropout(x))  # (B, 901, 192)
        return self.head(self.norm(x[:, 0])).squeeze(1)  # (B, 192) → (B,)


class TransformerLayer(nn.Module):
    """Attention between patches, then a dense part for each; both are added to what came in."""

    def __init__(self, width: int, heads: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Sequential(
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(expansion * width, width),
            nn.Dropout(dropout),
        )

    def attend(self, x: Tensor) -> Tensor:
        """Mix codes (B, n, width) by attention."""
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1))  # (B, n, 3, heads, width / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, n, width / heads)
        share = self.dropout.p if self.training else 0.0
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=share)
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))  # (B, n, width)

    def forward(self, x: Tensor) -> Tensor:
        """Pass codes (B, n, width) through the layer."""
        x = x + self.attend(self.norm1(x))
        return x + self.dense(self.norm2(x))
