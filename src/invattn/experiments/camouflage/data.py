"""The images of camouflaged object detection: for training, as batches; for the test, set by set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import torch
from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.camouflage.config import SYNTHETIC, CamouflageConfig
from invattn.experiments.camouflage.pairs import TEST_COUNTS, TRAINING_COUNT, MaskedImages, MaskFolder, count_note
from invattn.experiments.camouflage.synthetic import LARGEST_SIDE, SyntheticCamouflage
from invattn.experiments.kit.data.dequantise import counter_uniform
from invattn.experiments.kit.data.pixels import resize

SYNTHETIC_TRAIN, SYNTHETIC_TEST = 1000, 200

_CHANNEL_ORDERS = tuple(permutations(range(3)))

_MOST_COLOUR = 1.3
"""The colour that stays is uniform up to this, cut at 1: about a quarter of the images keep all of it."""

KEPT_BYTES = 2**30
"""Resized training images are kept in memory up to so much; further ones are read anew in every epoch."""


@dataclass(frozen=True)
class CamouflageData:
    """What a run trains and tests on.

    Attributes:
        train: Training images with masks.
        test: Test sets.
        notes: What a reader of the results must know, one sentence each.
    """

    train: MaskedImages
    test: Sequence[MaskedImages]
    notes: tuple[str, ...]

    def fingerprints(self) -> dict[str, str]:
        """Return a hash of each set; ``train`` is the training set's."""
        return {"train": self.train.fingerprint()} | {part.name: part.fingerprint() for part in self.test}


def open_camouflage_data(config: CamouflageConfig) -> CamouflageData:
    """Return the data of a run; DataError if they cannot be used."""
    notes: list[str | None] = []
    if config.data == SYNTHETIC:
        train: MaskedImages = _synthetic("train", config, config.train_size or SYNTHETIC_TRAIN)
        notes.append("generated from pictures of scikit-image and scikit-learn; none serves training and test")
    else:
        train = MaskFolder(Path(config.data), name=Path(config.data).name, limit=config.train_size)
        notes.append(count_note("the training set", len(train), published=TRAINING_COUNT))
    test: list[MaskedImages] = [MaskFolder(folder, name=name, limit=config.test_size) for name, folder in config.test]
    if not test:
        if config.data != SYNTHETIC:
            raise DataError("there is no test set: name at least one with --test NAME=DIR.")
        test = [_synthetic("test", config, config.test_size or SYNTHETIC_TEST)]
    notes += [
        count_note(part.name, len(part), published=TEST_COUNTS[part.name]) for part in test if part.name in TEST_COUNTS
    ]
    if len(train) < config.batch_size:
        raise DataError(
            f"a batch of {config.batch_size} images was asked for and there are {len(train)} training images. Choose a "
            "smaller --batch-size."
        )
    return CamouflageData(train, test, tuple(note for note in notes if note))


def _synthetic(part: str, config: CamouflageConfig, count: int) -> SyntheticCamouflage:
    side = min(config.image_size, LARGEST_SIDE)
    return SyntheticCamouflage(part, count=count, side=side, difficulty=config.difficulty, seed=config.seed)


class TrainingPairs:
    """Returns training images with their masks as a fourth channel, in 0..1, resized to a square.

    Args:
        images: The training set.
        side: Of the square in pixels.
        varied: Seed of random turns, mirrors and colours, other ones in every epoch; None: nothing is changed.
    """

    def __init__(self, images: MaskedImages, *, side: int, varied: int | None = None) -> None:
        self._images, self._side, self._varied = images, side, varied
        self._kept: dict[int, Tensor] = {}
        self._most = KEPT_BYTES // (4 * side * side)

    def __call__(self, index: Tensor, epoch: int = 0) -> Tensor:
        """Return shape (B, 4, side, side) for an index with shape (B,); the epoch decides how they are varied."""
        pairs = torch.stack([self._square(number) for number in index.tolist()]).float() / 255
        return pairs if self._varied is None else vary_pairs(pairs, seed=self._varied, step=epoch, index=index)

    def _square(self, number: int) -> Tensor:
        if number in self._kept:
            return self._kept[number]
        image, mask = self._images.pair(number)
        resized = [resize(part, height=self._side, width=self._side) for part in (image, mask.expand(3, -1, -1))]
        square = torch.cat([resized[0], resized[1][:1]])
        if len(self._kept) < self._most:
            self._kept[number] = square
        return square


def vary_pairs(pairs: Tensor, *, seed: int, step: int, index: Tensor) -> Tensor:
    """Turn each square, shape (4, S, S), mirror it, exchange its colour channels and take away part of its colour.

    The mask turns with its image. What happens to one is a function of seed, step (the pass over the data) and index
    (the number of the sample in its data set, int64, shape (B,)), and of nothing else.
    """
    drawn = counter_uniform(index, seed=seed, step=step, count=4, bits=32).tolist()
    return torch.stack([_varied(pair, *numbers) for pair, numbers in zip(pairs, drawn, strict=True)])


def _varied(pair: Tensor, turn: float, mirror: float, order: float, colour: float) -> Tensor:
    """Return one pair, shape (4, S, S), changed as four numbers in [0, 1) say."""
    pair = torch.rot90(pair, int(4 * turn), (1, 2))
    if mirror < 0.5:
        pair = pair.flip(-1)
    image = pair[list(_CHANNEL_ORDERS[int(len(_CHANNEL_ORDERS) * order)])]
    image = torch.lerp(image.mean(dim=0, keepdim=True).expand_as(image), image, min(1.0, _MOST_COLOUR * colour))
    return torch.cat([image, pair[3:]])
