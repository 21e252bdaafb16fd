"""The network that finds camouflaged objects, and what a stored one is built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn._errors import DataError, check_name
from invattn.bijections import Bijection
from invattn.experiments.camouflage.backbone import ResNetLevels
from invattn.experiments.camouflage.config import BACKBONES, NO_ATTENTION
from invattn.hub import StoredConfig
from invattn.hub.model_folder import read_model, refuse
from invattn.recipes import KINDS, Recipe, invertible_attention

CHANNELS = 32
"""Channels of every level after its reduction; the attention modules see as many."""

RATES = (3, 6, 12, 18)
"""Distances in pixels between the taps of the four convolutions."""

OUTER = 0.1
"""Spread of the outer taps at the start, relative to the centre's: it nearly is a 1 x 1 convolution, and learns to look
further."""

REDUCTION = 16
"""Channels per hidden unit of the gate."""

WIDTH = 32
"""Channels of the light head."""


class _Map(nn.Module):
    """A module from one tensor to one tensor."""

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = super().__call__(x)
        return result


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(StoredConfig):
    """What a network that finds camouflaged objects is built from.

    Attributes:
        kind: Kind of the attention, or ``none`` for the paper's Base row.
        recipe: Form of the attention; None with ``none``.
        lipschitz: c of the attention.
        backbone: ``resnet50`` or ``small``.
        image_size: Side in pixels to which images are resized for it.

    Raises:
        ValueError: If a name is unknown, or kind and recipe do not go together.
    """

    model: ClassVar[str | None] = "camouflage_network"

    kind: str
    recipe: Recipe | None
    lipschitz: float = 0.9
    backbone: str = "resnet50"
    image_size: int = 352

    def __post_init__(self) -> None:
        check_name(self.kind, (*KINDS, NO_ATTENTION), what="attention")
        check_name(self.backbone, BACKBONES, what="backbone")
        if (self.kind == NO_ATTENTION) != (self.recipe is None):
            raise ValueError(f"attention {self.kind!r} goes with {'no' if self.recipe else 'a'} recipe.")

    def build(self) -> CamouflageNetwork:
        return CamouflageNetwork(self)


class CamouflageNetwork(_Map):
    """Maps images to the logits of belonging to a camouflaged object.

    Each level of the backbone is reduced to 32 channels and goes through an attention module AT of its own. From the
    coarsest level to the finest, all coarser maps are enlarged, concatenated with the level's own, passed through a
    residual channel attention block and reduced to 32 channels again.

    How we differ from the paper:
        1. Its Fig. 8 shows AT without saying on what it acts; we put it on the 32-channel maps of each level.
        2. Sizes that are no multiple of 32 are resized to the next finer level's, whatever that is.

    Args:
        config: What to build.

    References:
        Zha et al. 2021, Sec. 4.3, F.3, Fig. 8; Lv et al. 2021 (the decoder).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.backbone = ResNetLevels(config.backbone)
        levels = len(self.backbone.channels)
        self.reductions = nn.ModuleList(DilatedReduction(channels, CHANNELS) for channels in self.backbone.channels)
        widths = [CHANNELS * (levels - level) for level in range(levels - 1)]
        self.channel_attention = nn.ModuleList(ResidualChannelAttention(width) for width in widths)
        self.merges = nn.ModuleList(DilatedReduction(width, CHANNELS) for width in widths)
        self.head = DilatedReduction(CHANNELS, 1)
        # Drawn last: from one seed, networks that differ in their attention start with equal weights elsewhere.
        self.attention = nn.ModuleList(_attention(config) for _ in range(levels))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits with shape (B, 1, H, W) for images in 0..1 with shape (B, 3, H, W).

        Raises:
            ValueError: If the images have another shape.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must have shape (B, 3, H, W); got {tuple(images.shape)}.")
        inputs = self.attention_inputs(images)
        levels = [attention(level) for attention, level in zip(self.attention, inputs, strict=True)]
        return _resized(self.head(self._decode(levels)), like=images)

    def attention_inputs(self, images: Tensor) -> list[Tensor]:
        """Return what the attention module of each level sees, shape (B, 32, h, w), the finest level first."""
        features = self.backbone(images)
        return [reduction(feature) for reduction, feature in zip(self.reductions, features, strict=True)]

    def blocks(self) -> list[Bijection]:
        """Return the attention module of each level, the finest first; none in the Base network."""
        return [block for block in self.attention if isinstance(block, Bijection)]

    def _decode(self, levels: Sequence[Tensor]) -> Tensor:
        """Merge the levels from the coarsest to the finest."""
        merged = [levels[-1]]
        for level in reversed(range(len(levels) - 1)):
            own = levels[level]
            coarser = [_resized(part, like=own) for part in merged]
            merged.append(self.merges[level](self.channel_attention[level](torch.cat([*coarser, own], dim=1))))
        return merged[-1]


def _attention(config: NetworkConfig) -> nn.Module:
    if config.recipe is None:
        return nn.Identity()
    return invertible_attention(CHANNELS, kind=config.kind, recipe=config.recipe, lipschitz=config.lipschitz)


class DilatedReduction(_Map):
    """The sum of four dilated 3 x 3 convolutions, from any number of channels to a few; height and width stay.

    References:
        Zha et al. 2021, Fig. 8; Chen et al. 2017, "DeepLab" (dilated convolutions whose results are added).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=rate, dilation=rate) for rate in RATES
        )
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            # Four centre taps have the variance of one 1 x 1 convolution.
            nn.init.normal_(convolution.weight, std=OUTER * (in_channels * len(RATES)) ** -0.5)
            convolution.weight.data[..., 1, 1] /= OUTER
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, shape (B, out_channels, H, W), for x with shape (B, in_channels, H, W)."""
        return torch.stack([convolution(x) for convolution in self.convolutions]).sum(dim=0)


class ResidualChannelAttention(_Map):
    """x + gate(h) h with h = conv(relu(conv(x))), the gate one number in 0..1 for each channel of the image.

    References:
        Zhang et al. 2018, "Image super-resolution using very deep residual channel attention networks".
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, kernel_size=3, padding=1) for _ in range(2))
        self.body = nn.Sequential(first, nn.ReLU(), second)
        hidden = max(1, channels // REDUCTION)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, kernel_size=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x, (B, C, H, W)."""
        change: Tensor = self.body(x)
        gate: Tensor = self.gate(change)
        return x + gate * change


class LightHead(_Map):
    """Maps images to logits: the sum of all levels at the finest one, then two small convolutions.

    A step, which trains the backbone too, costs about a fifth of one with the decoder: the backbone sees more images in
    the same time.
    """

    def __init__(self, backbone: ResNetLevels) -> None:
        super().__init__()
        self.backbone = backbone
        self.reductions = nn.ModuleList(nn.Conv2d(channels, WIDTH, kernel_size=1) for channels in backbone.channels)
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, 1, kernel_size=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits with shape (B, 1, H, W) for images in 0..1 with shape (B, 3, H, W)."""
        features = self.backbone(images)
        reduced = [reduction(level) for reduction, level in zip(self.reductions, features, strict=True)]
        together = torch.stack([_resized(level, like=features[0]) for level in reduced]).sum(dim=0)
        return _resized(self.head(together), like=images)


def _resized(x: Tensor, *, like: Tensor) -> Tensor:
    """Resize (B, C, h, w) to the height and width of another tensor."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def load_network(folder: Path | str) -> tuple[CamouflageNetwork, NetworkConfig]:
    """Rebuild a network in eval mode, and what it was built from, from its folder, as :func:`load_model` a block.

    Raises:
        DataError: As ``load_model``, and if the folder holds another model.
        CertificateError: As ``load_model``.
    """
    loaded = read_model(folder, families=(NetworkConfig,))
    refuse(folder, loaded.problems)
    if not isinstance(loaded.config, NetworkConfig):
        raise DataError(f"{folder} does not hold a network of `invattn camouflage train`. Give another folder.")
    assert isinstance(loaded.model, CamouflageNetwork), "what such a configuration builds"
    return loaded.model, loaded.config
