"""EfficientNet-B3: what a cell looks like, in 1536 numbers.

Tan and Le (2019), "EfficientNet: rethinking model scaling for convolutional neural networks", ICML,
scaled to B3: 1.2 times as wide and 1.4 times as deep as B0. Layers are named as torchvision names
them, so that the weights it publishes (trained on ImageNet) load as they are.

Without weights, the network is a random one, which tells textures apart but knows no things. Its
batch norms have seen nothing, and what passes would fade from layer to layer, so they take their
statistics from a seeded batch of noise.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from popdask.arithmetic import fixed_arithmetic
from popdask.errors import InputError

FEATURES = 1536
SIZE = 300
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
URL = "https://download.pytorch.org/models/efficientnet_b3_rwightman-b3899882.pth"

# Table 1 of the paper, scaled: expansion, kernel, stride, channels in and out, blocks.
STAGES = (
    (1, 3, 1, 40, 24, 2),
    (6, 3, 2, 24, 32, 3),
    (6, 5, 2, 32, 48, 3),
    (6, 3, 2, 48, 96, 5),
    (6, 5, 1, 96, 136, 5),
    (6, 5, 2, 136, 232, 6),
    (6, 3, 1, 232, 384, 2),
)


class EfficientNetB3(nn.Module):
    """EfficientNet-B3: (B, 3, 300, 300) → (B, classes), 12,233,232 parameters for 1000 classes.

    Parameters
    ----------
    classes : int, optional
        Outputs of the last layer; `embed` does without it.

    Notes
    -----
    Images are in [0, 1], then normalised by `MEAN` and `STD` per band. Any size from 32 pixels on
    works; the published weights were trained on 300. There is no stochastic depth, which matters in
    training only.

    Examples
    --------
    >>> sum(p.numel() for p in EfficientNetB3().parameters())
    12233232
    >>> EfficientNetB3().eval().embed(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1536])
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        stages = [
            nn.Sequential(
                MBConv(expansion, kernel, stride, before, after),
                *(MBConv(expansion, kernel, 1, after, after) for _ in range(blocks - 1)),
            )
            for expansion, kernel, stride, before, after, blocks in STAGES
        ]
        first, last = _conv(3, STAGES[0][3], 3, stride=2), _conv(STAGES[-1][4], FEATURES, 1)
        self.features = nn.Sequential(first, *stages, last)
        self.classifier = nn.Sequential(nn.Dropout(0.3), nn.Linear(FEATURES, classes))

    def embed(self, x: Tensor) -> Tensor:
        """Give the features of images, the mean over their places: (B, 3, h, w) → (B, 1536)."""
        return self.features(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Give the logits of the classes."""
        return self.classifier(self.embed(x))


class MBConv(nn.Module):
    """Inverted residual: widen, look around channel by channel, weigh the channels, narrow."""

    def __init__(self, expansion: int, kernel: int, stride: int, before: int, after: int) -> None:
        super().__init__()
        wide = before * expansion
        self.block = nn.Sequential(
            *([_conv(before, wide, 1)] if expansion > 1 else []),
            _conv(wide, wide, kernel, stride=stride, groups=wide),
            SqueezeExcitation(wide, before // 4),
            _conv(wide, after, 1, activation=False),
        )
        self.residual = stride == 1 and before == after

    @property
    def norm(self) -> nn.Module:
        """The batch norm that ends the block."""
        return self.block.get_submodule(f"{len(self.block) - 1}.1")

    def forward(self, x: Tensor) -> Tensor:
        """Add what the block finds, where shapes allow it."""
        return x + self.block(x) if self.residual else self.block(x)


class SqueezeExcitation(nn.Module):
    """A weight for each channel, from the means of all (Hu, Shen and Sun 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of (B, channels, h, w)."""
        weights = nn.functional.silu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(weights))


def _conv(
    before: int,
    after: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    """Convolution, batch norm and, mostly, SiLU."""
    layers = [
        nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    ]
    return nn.Sequential(*layers, *([nn.SiLU(inplace=True)] if activation else []))


def load_efficientnet(weights: str | Path | None = None, *, seed: int = 0) -> EfficientNetB3:
    """Make the network ready for use.

    Parameters
    ----------
    weights : None, "imagenet", str or Path, optional
        None for a random network; "imagenet" for the weights that torchvision publishes, fetched
        once by torch.hub and checked by their hash; or a file with a state dict of the same names,
        safetensors, or ``.pth`` or ``.pt``, of which nothing but tensors is read.
    seed : int, optional
        Of a random network.

    Returns
    -------
    EfficientNetB3
        On the CPU, in float32, in evaluation mode, without gradients.

    Raises
    ------
    InputError
        If the weights cannot be read or fetched, or are those of another network.

    Examples
    --------
    >>> network = load_efficientnet(seed=1)
    >>> network.embed(torch.zeros(1, 3, 64, 64)).isfinite().all().item()
    True
    """
    with torch.device("meta"):  # layers draw weights of their own, from torch's global state
        network = EfficientNetB3()
    network.to_empty(device="cpu")
    if weights is None:
        _invent(network, seed)
    else:
        state = _fetch() if weights == "imagenet" else _read(Path(weights))
        _adopt(network, state, str(weights))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


def _invent(network: EfficientNetB3, seed: int) -> None:
    """Draw weights (He et al. 2015), and take the statistics of the batch norms from noise."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            spread = math.sqrt(2 / layer.weight[0].numel())
            nn.init.normal_(layer.weight, 0, spread, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
            layer.momentum = 1.0
    for layer in network.modules():
        if isinstance(layer, MBConv) and layer.residual:
            # Near the identity, as in Goyal et al. (2017): else so many random layers leave noise.
            nn.init.constant_(layer.norm.get_parameter("weight"), 0.2)
    with fixed_arithmetic(1), torch.no_grad():
        network.train().embed(_noise(generator))


def _noise(generator: torch.Generator) -> Tensor:
    """Draw grey images with structures of all sizes, (16, 3, 96, 96)."""
    octaves = [torch.randn(16, 1, side, side, generator=generator) for side in (3, 6, 12, 24, 48)]
    coarse = [nn.functional.interpolate(octave, size=96, mode="bilinear") for octave in octaves]
    fine = torch.randn(16, 1, 96, 96, generator=generator)
    return (sum(coarse) + fine).expand(-1, 3, -1, -1)


def _fetch() -> dict[str, Tensor]:
    """Give the published weights, from torch.hub's folder or from the net."""
    try:
        return torch.hub.load_state_dict_from_url(
            URL, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(
            f'weights = "imagenet" cannot be fetched from {URL} ({error}): connect to the internet '
            f"once, or put that file into {folder}, or give its path."
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code from it."""
    try:
        if path.suffix in (".pth", ".pt"):
            return torch.load(path, map_location="cpu", weights_only=True)
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise InputError(
            f"weights {path} cannot be read ({error.strerror or error}): give a file (safetensors "
            'or .pth), "imagenet", or none.'
        ) from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise InputError(
            f"weights {path} are not a file of tensors alone ({reason}): give a state dict as "
            "safetensors or .pth."
        ) from error


def _adopt(network: EfficientNetB3, state: object, name: str) -> None:
    """Load a state dict; say in one sentence where it does not fit."""
    expected = network.state_dict()
    given = state if isinstance(state, dict) else {}
    shapes = {key: tuple(value.shape) for key, value in given.items() if isinstance(value, Tensor)}
    # A classifier for other classes is no matter: features are taken before it.
    fits = {key for key, value in expected.items() if shapes.get(key) == tuple(value.shape)}
    wrong = [key for key in expected if key not in fits and not key.startswith("classifier")]
    if wrong:
        found = f"{wrong[0]} is {shapes[wrong[0]]}" if wrong[0] in shapes else f"no {wrong[0]}"
        raise InputError(
            f"weights {name} do not fit EfficientNet-B3 ({found}; {len(wrong)} of {len(expected)} "
            "entries are missing or of other shapes): give a state dict of torchvision's "
            "efficientnet_b3."
        )
    keep = {
        key: given.get(key) for key in expected if shapes.get(key) == tuple(expected[key].shape)
    }
    network.load_state_dict({**expected, **keep})
