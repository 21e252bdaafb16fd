"""Images that are files: any folder, and CelebA's."""

from pathlib import Path

import torch

from invattn._errors import DataError
from invattn.experiments.kit.data.pixels import read_picture
from invattn.experiments.kit.data.reading import ImageRequest, Pictures, brief, disjoint_counts

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

_CELEBA = "img_align_celeba"

# What file managers leave behind without being asked.
_LEFT_BY_FILE_MANAGERS = frozenset({"thumbs.db", "desktop.ini"})


def open_folder(folder: Path, request: ImageRequest) -> Pictures:
    """Take images from a folder: from its `train` and `test`, or else split at random by the seed.

    A training image is never a test image. Hidden files are ignored, other folders not read.

    Raises:
        DataError: when the folder is missing, empty, or holds a file that is no image.
    """
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        train, test = list_images(folder / "train"), list_images(folder / "test")
        return Pictures(map(read_picture, train[: request.train_size]), map(read_picture, test[: request.test_size]))
    paths = list_images(folder)
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(request.seed % 2**63)).tolist()
    note = f"there are no train and test folders: {len(paths)} images were split at random (seed {request.seed})"
    inside = ", ".join(_folder_names(folder))
    notes = (note, f"folders inside are not read: {inside}") if inside else (note,)
    return _ends([paths[place] for place in order], folder, request, notes=notes)


def open_celeba(data_root: Path, request: ImageRequest) -> Pictures:
    """Take the first files by name for training and the last for the test, as the paper's released code does.

    Args:
        data_root: the folder `img_align_celeba`, or one that holds it, or holds `celeba/img_align_celeba`.
        request: how many images are wanted; a training image is never a test image.

    Raises:
        DataError: when the folder is missing or empty.

    References:
        Liu, Luo, Wang, Tang: "Deep learning face attributes in the wild", ICCV 2015.
    """
    return _ends(list_images(_find_celeba(data_root)), data_root, request)


def _ends(paths: list[Path], folder: Path, request: ImageRequest, *, notes: tuple[str, ...] = ()) -> Pictures:
    """Take the first files for training and the last for the test."""
    train_count, test_count = disjoint_counts(
        len(paths), train_size=request.train_size, test_size=request.test_size, name=str(folder)
    )
    test = paths[len(paths) - test_count :]
    return Pictures(map(read_picture, paths[:train_count]), map(read_picture, test), notes)


def _find_celeba(data_root: Path) -> Path:
    # Some archives hold the folder within a folder of the same name.
    for folder in (data_root / _CELEBA / _CELEBA, data_root / _CELEBA, data_root / "celeba" / _CELEBA):
        if folder.is_dir():
            return folder
    if data_root.name == _CELEBA or any(data_root.glob("*.jpg")):
        return data_root
    raise DataError(f"there is no {_CELEBA} in {data_root}: unpack {_CELEBA}.zip there, or leave out --data-root")


def list_images(folder: Path) -> list[Path]:
    """Return the image files of a folder, at least one, sorted by name.

    Files and folders whose name begins with a dot are ignored, folders are not entered.

    Raises:
        DataError: when the folder is missing or unreadable, holds no image, or holds a file that is no image.
    """
    files = [path for path in _entries(folder) if not path.is_dir()]
    for path in files:
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{path} is not an image (expected {' '.join(SUFFIXES)}): move it out of the folder")
    if not files:
        folders = ", ".join(_folder_names(folder))
        inside = f", only folders ({folders}): name one of them, or put train and test inside" if folders else ""
        raise DataError(f"{folder} holds no images{inside or ': expected ' + ' '.join(SUFFIXES)}")
    return files


def _entries(folder: Path) -> list[Path]:
    if not folder.exists():
        raise DataError(f"there is no folder {folder}: check the path")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, not a folder of images: name the folder it lies in")
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({brief(error)}): check its permissions") from error
    return [path for path in entries if path.name[0] != "." and path.name.lower() not in _LEFT_BY_FILE_MANAGERS]


def _folder_names(folder: Path) -> list[str]:
    return [path.name for path in _entries(folder) if path.is_dir()]
