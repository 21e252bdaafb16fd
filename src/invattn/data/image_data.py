"""The images of an experiment, with their fingerprint."""

import hashlib
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ImageData:
    """Training and test images of one data set at one size.

    Args:
        name: the data set, or the folder it was read from.
        train: uint8, shape (n, 3, H, W), 0 to 255; digits have one channel and values 0 to 16.
        test: uint8, shape (m, 3, H, W), likewise.
        fingerprint: SHA-256 over the shapes and pixels of both parts, 64 hexadecimal digits.
        notes: what was left out, converted, cropped or split, one sentence each.
        native_size: height x width before any resize or crop, or `"various"`.
    """

    name: str
    train: Tensor
    test: Tensor
    fingerprint: str
    notes: tuple[str, ...]
    native_size: str


def fingerprint(*images: Tensor) -> str:
    """Return the SHA-256 over the shapes and pixels of uint8 tensors, in the order given."""
    digest = hashlib.sha256()
    for batch in images:
        digest.update(repr(tuple(batch.shape)).encode("ascii"))
        digest.update(batch.contiguous().numpy().data)
    return digest.hexdigest()
