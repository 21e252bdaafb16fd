"""Images of the density experiment: faces, folders, digits, and mirrored ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from invattn._errors import DataError
from invattn.experiments.density.images import box_resize, face_square, flip_half, grey_levels, load_density_images
from invattn.experiments.kit.data.pixels import read_picture
from invattn.experiments.kit.data.reading import ImageRequest

Writer = Callable[..., Path]


@pytest.mark.parametrize(("height", "width", "side"), [(109, 89, 74), (218, 178, 148), (40, 178, 40)])
def test_a_face_is_the_centred_square_of_148_of_178_pixels(height: int, width: int, side: int) -> None:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    square = face_square(torch.stack([rows, columns, rows]).to(torch.uint8))
    assert square.shape == (3, side, side)
    assert int(square[0, 0, 0]) == (height - side) // 2
    assert int(square[1, 0, 0]) == (width - side) // 2


def test_a_box_filter_takes_the_mean_of_each_area() -> None:
    pixels = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    means = torch.nn.functional.avg_pool2d(pixels.double(), 6)
    assert bool(((box_resize(pixels, side=4).double() - means).abs() <= 1).all())  # rows and columns are rounded
    assert torch.equal(box_resize(pixels, side=24), pixels)


def test_celeba_is_cut_reduced_and_split_by_name(write_image: Writer, tmp_path: Path) -> None:
    paths = [
        write_image(f"{number:06d}.jpg", folder="img_align_celeba", height=109, width=89) for number in range(1, 8)
    ]
    data = load_density_images(
        ImageRequest("celeba", data_root=tmp_path, train_size=4, test_size=2, image_size=16, seed=0)
    )
    expected = [box_resize(face_square(read_picture(path).pixels), side=16) for path in paths]
    assert torch.equal(data.train, torch.stack(expected[:4]))
    assert torch.equal(data.test, torch.stack(expected[-2:]))
    assert any("JPEG" in note for note in data.notes)
    assert any("last" in note for note in data.notes)


def test_lossy_files_of_a_folder_are_noted(write_image: Writer, tmp_path: Path) -> None:
    for number in range(3):
        write_image(f"{number}.png", height=8, width=8)
    lossless = load_density_images(
        ImageRequest(str(tmp_path / "images"), data_root=None, train_size=2, test_size=1, image_size=8, seed=0)
    )
    assert not any("JPEG" in note for note in lossless.notes)
    write_image("3.jpg", height=8, width=8)
    mixed = load_density_images(
        ImageRequest(str(tmp_path / "images"), data_root=None, train_size=2, test_size=1, image_size=8, seed=0)
    )
    assert any(note.startswith("1 of 4 files are JPEG") for note in mixed.notes)


def test_digits_have_their_own_size_and_levels() -> None:
    data = load_density_images(ImageRequest("digits", data_root=None, train_size=5, test_size=4, image_size=8, seed=0))
    assert data.train.shape == (5, 1, 8, 8)
    assert (grey_levels("digits"), grey_levels("cifar10"), grey_levels("a/folder")) == (17, 256, 256)
    with pytest.raises(DataError, match="8 x 8 pixels; got --image-size 16"):
        load_density_images(ImageRequest("digits", data_root=None, train_size=5, test_size=4, image_size=16, seed=0))


def test_half_of_the_images_are_mirrored_as_seed_epoch_and_number_say() -> None:
    images = torch.randint(0, 256, (2000, 1, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 0, 0, 0], images[:, 0, 0, 2] = 1, 2
    index = torch.arange(2000)
    seen = flip_half(images, seed=4, step=1, index=index)
    mirrored = seen[:, 0, 0, 0] == 2
    assert abs(int(mirrored.sum()) - 1000) < 4 * (2000 / 4) ** 0.5
    assert torch.equal(seen[mirrored], images[mirrored].flip(-1))
    assert torch.equal(seen[~mirrored], images[~mirrored])
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(flip_half(images[order], seed=4, step=1, index=index[order]), seen[order])
    assert not torch.equal(flip_half(images, seed=4, step=2, index=index), seen)
