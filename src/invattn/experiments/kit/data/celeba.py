"""CelebA's aligned faces from the publishers' folder."""

from pathlib import Path

from invattn._errors import DataError
from invattn.experiments.kit.data.folder import list_images, read_all
from invattn.experiments.kit.data.reading import Pictures, disjoint_counts

_FOLDER = "img_align_celeba"


def open_celeba(data_root: Path, *, train_size: int, test_size: int) -> Pictures:
    """Take the first files by name for training and the last for the test, as the paper's released code does.

    Args:
        data_root: the folder `img_align_celeba`, or one that holds it, or holds `celeba/img_align_celeba`.
        train_size: how many training images are wanted.
        test_size: how many test images are wanted.

    Returns:
        the pictures; a training image is never a test image.

    Raises:
        DataError: when the folder is missing or empty.

    References:
        Liu, Luo, Wang, Tang: "Deep learning face attributes in the wild", ICCV 2015.
    """
    paths = list_images(_find(data_root))
    train_count, test_count = disjoint_counts(
        len(paths), train_size=train_size, test_size=test_size, name=str(data_root)
    )
    return Pictures(read_all(paths[:train_count]), read_all(paths[len(paths) - test_count :]))


def _find(data_root: Path) -> Path:
    # Some archives hold the folder within a folder of the same name.
    for folder in (data_root / _FOLDER / _FOLDER, data_root / _FOLDER, data_root / "celeba" / _FOLDER):
        if folder.is_dir():
            return folder
    if data_root.name == _FOLDER or any(data_root.glob("*.jpg")):
        return data_root
    raise DataError(f"there is no {_FOLDER} in {data_root}: unpack {_FOLDER}.zip there, or leave out --data-root")
