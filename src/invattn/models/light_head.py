"""A light head, under which a backbone is trained before it serves a larger network."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn.models.resnet import ResNetLevels

WIDTH = 32


class LightHead(nn.Module):
    """Maps images to logits: the sum of all levels at the finest one, then two small convolutions.

    A step costs about a fifth of one with the decoder, so that the backbone sees more images in the same time.

    Args:
        backbone: Is trained with the head.
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
        size = features[0].shape[-2:]
        reduced = [reduction(level) for reduction, level in zip(self.reductions, features, strict=True)]
        together = torch.stack(
            [F.interpolate(level, size=size, mode="bilinear", align_corners=False) for level in reduced]
        ).sum(dim=0)
        logits = self.head(together)
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def __call__(self, images: Tensor) -> Tensor:
        return cast(Tensor, super().__call__(images))
