"""The ResNet under the network: four levels of features, with or without pretrained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from invattn._errors import DataError, check_name

if TYPE_CHECKING:
    from transformers import ResNetBackbone

STAGES = ("stage1", "stage2", "stage3", "stage4")
"""Levels at strides 4, 8, 16 and 32."""

HUB_NAME = "microsoft/resnet-50"

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

_SIZES: dict[str, dict[str, Any]] = {
    "resnet50": {},  # the defaults of ResNetConfig are ResNet-50's: 256, 512, 1024, 2048 channels
    "small": {"embedding_size": 16, "hidden_sizes": [24, 32, 48, 64], "depths": [1, 1, 1, 1], "layer_type": "basic"},
}

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch normalisation stores and normalisation image by image does not have."""


class ResNetLevels(nn.Module):
    """A ResNet without its head, started at random.

    The small one is ours. It normalises each channel image by image, where ResNet-50 normalises over the batch: what
    stands out from the rest of its own image is then what it sees first, and it learns from few images.

    Args:
        name: ``resnet50``, or ``small`` for quick runs.

    Attributes:
        channels: Channels of the four levels.

    References:
        He et al. 2016.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        from transformers import ResNetBackbone, ResNetConfig

        super().__init__()
        check_name(name, tuple(_SIZES), what="backbone")
        with quiet_transformers():
            config = ResNetConfig(**{"out_features": list(STAGES), **_SIZES[name]})
            self.resnet: ResNetBackbone = ResNetBackbone(config)
        if name == "small":
            _normalise_by_image(self.resnet)
        self.channels: tuple[int, ...] = tuple(self.resnet.channels)
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features of images in 0..1, shape (B, 3, H, W), the finest level first."""
        return list(self.resnet((images - self.mean) / self.std).feature_maps)

    def __call__(self, images: Tensor) -> list[Tensor]:
        levels: list[Tensor] = super().__call__(images)
        return levels


def load_backbone_weights(levels: ResNetLevels, source: str) -> None:
    """Replace the weights of a backbone by pretrained ones.

    ``none`` leaves it as it is; ``hub`` is the ResNet-50 trained on ImageNet-1K of the Hugging Face hub; any other
    source is a folder with a ResNet of the transformers library.

    Raises:
        DataError: If the weights cannot be had, or are of another network; one line that says what to do.
    """
    if source == "none":
        return
    path = HUB_NAME if source == "hub" else source
    if source != "hub" and not Path(source).is_dir():
        raise DataError(f"the backbone weights {source} are no folder: give hub, none, or what save_pretrained wrote.")
    from transformers import ResNetBackbone

    try:
        with quiet_transformers():
            loaded = ResNetBackbone.from_pretrained(path, out_features=list(STAGES), local_files_only=source != "hub")
            own, stored = levels.resnet.state_dict(), loaded.state_dict()
            unused = [key for key in stored if key not in own and key.rpartition(".")[2] in _STATISTICS]
            levels.resnet.load_state_dict({key: value for key, value in stored.items() if key not in unused})
    except (OSError, ValueError, KeyError) as error:
        remedy = "Without a network, give --backbone-weights PATH or none." if source == "hub" else "Save it anew."
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"the backbone weights {path} cannot be read ({reason}). {remedy}") from None
    except RuntimeError:
        raise DataError(f"the backbone weights {path} are of another network than the one to train.") from None


def _normalise_by_image(module: nn.Module) -> None:
    """Replace every batch normalisation inside by one of each image."""
    for name, part in module.named_children():
        if isinstance(part, nn.BatchNorm2d):
            setattr(module, name, nn.InstanceNorm2d(part.num_features, affine=True))
        else:
            _normalise_by_image(part)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the notices and progress bars of the transformers library inside the block."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
