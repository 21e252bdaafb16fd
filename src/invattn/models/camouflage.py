"""The network that finds camouflaged objects: ResNet, attention at every level, top-down decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn._names import check_name
from invattn.bijections import Bijection
from invattn.models.dilated_reduction import DilatedReduction
from invattn.models.residual_channel_attention import ResidualChannelAttention
from invattn.models.resnet import BACKBONES as BACKBONES
from invattn.models.resnet import ResNetLevels
from invattn.recipes import KINDS, Recipe, invertible_attention

CHANNELS = 32
"""Channels of every level after its reduction; the attention modules see as many."""

NO_ATTENTION = "none"


@dataclass(frozen=True, kw_only=True)
class CamouflageArchitecture:
    """What the network is built from.

    Attributes:
        kind: Kind of the attention, or ``none`` for the paper's Base row.
        recipe: Form of the attention; None with ``none``.
        lipschitz: c of the attention.
        backbone: ``resnet50`` or ``small``.

    Raises:
        ValueError: If a name is unknown, or kind and recipe do not go together.
    """

    kind: str
    recipe: Recipe | None
    lipschitz: float = 0.9
    backbone: str = "resnet50"

    def __post_init__(self) -> None:
        check_name(self.kind, (*KINDS, NO_ATTENTION), what="attention")
        check_name(self.backbone, BACKBONES, what="backbone")
        if (self.kind == NO_ATTENTION) != (self.recipe is None):
            raise ValueError(f"attention {self.kind!r} goes with {'no' if self.recipe else 'a'} recipe.")

    def network(self) -> CamouflageNetwork:
        """Return a new network with weights from torch's default generator."""
        return CamouflageNetwork(self)


class CamouflageNetwork(nn.Module):
    """Maps images to the logits of belonging to a camouflaged object.

    Each level of the backbone is reduced to 32 channels and goes through an attention module AT of its own. From the
    coarsest level to the finest, all coarser maps are enlarged, concatenated with the level's own, passed through a
    residual channel attention block and reduced to 32 channels again.

    How we differ from the paper:
        1. Its Fig. 8 shows AT without saying on what it acts; we put it on the 32-channel maps of each level.
        2. Sizes that are no multiple of 32 are resized to the next finer level's, whatever that is.

    Args:
        architecture: What to build.

    References:
        Zha et al. 2021, Sec. 4.3, F.3, Fig. 8; Lv et al. 2021 (the decoder).
    """

    def __init__(self, architecture: CamouflageArchitecture) -> None:
        super().__init__()
        self.backbone = ResNetLevels(architecture.backbone)
        levels = len(self.backbone.channels)
        self.reductions = nn.ModuleList(DilatedReduction(channels, CHANNELS) for channels in self.backbone.channels)
        widths = [CHANNELS * (levels - level) for level in range(levels - 1)]
        self.channel_attention = nn.ModuleList(ResidualChannelAttention(width) for width in widths)
        self.merges = nn.ModuleList(DilatedReduction(width, CHANNELS) for width in widths)
        self.head = DilatedReduction(CHANNELS, 1)
        # Drawn last: from one seed, networks that differ in their attention start with equal weights elsewhere.
        self.attention = nn.ModuleList(_attention(architecture) for _ in range(levels))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits with shape (B, 1, H, W) for images in 0..1 with shape (B, 3, H, W).

        Raises:
            ValueError: If the images have another shape.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must have shape (B, 3, H, W); got {tuple(images.shape)}.")
        levels = [
            attention(level) for attention, level in zip(self.attention, self.attention_inputs(images), strict=True)
        ]
        logits = self.head(self._decode(levels))
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def __call__(self, images: Tensor) -> Tensor:
        result: Tensor = super().__call__(images)
        return result

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
            coarser = [
                F.interpolate(part, size=own.shape[-2:], mode="bilinear", align_corners=False) for part in merged
            ]
            merged.append(self.merges[level](self.channel_attention[level](torch.cat([*coarser, own], dim=1))))
        return merged[-1]


def _attention(architecture: CamouflageArchitecture) -> nn.Module:
    if architecture.recipe is None:
        return nn.Identity()
    return invertible_attention(
        CHANNELS, kind=architecture.kind, recipe=architecture.recipe, lipschitz=architecture.lipschitz
    )
