"""The vision transformer: how many people live in a cell.

After Sellebjerg, Lorentsen, Møller-Jensen, Siddique and Hansen, Population Estimation. Without
arguments it is that work's model of 300 m cells, to the number of parameters.
"""

import torch
from torch import Tensor, nn

from popdask.errors import InputError
from popdask.imagery.models.network import Network, configuration


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
    >>> from popdask.imagery.models import parameter_count
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
        self.head = nn.Sequential(nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Give log(1 + people)."""
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
