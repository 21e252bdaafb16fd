import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from invattn._errors import DataError
from invattn.experiments.kit.data.publishers import read_batch

# The frame of a batch as Python 2 wrote it: protocol 2, byte strings, numpy.core.
_PYTHON_2 = (
    b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x04dataq\x04"
    b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07"
    b"(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\t"
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x18\x00\x00%btb"
    b"u."
)


def _one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def _write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    return path


def test_reads_what_python_2_wrote(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    before, after = _PYTHON_2.split(b"%b")
    images = read_batch(_write(tmp_path, before + pixels.tobytes() + after))
    assert images.dtype == torch.uint8
    assert torch.equal(images, torch.from_numpy(pixels))
    images[0, 0, 0, 0] = 0  # writable


def test_pixels_that_end_within_an_image_are_refused(tmp_path: Path) -> None:
    before, after = _PYTHON_2.replace(b"T\x00\x18\x00\x00", b"T\x01\x18\x00\x00").split(b"%b")
    with pytest.raises(DataError, match="its pixels end within an image"):
        read_batch(_write(tmp_path, before + bytes(6145) + after))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_what_python_3_writes(tmp_path: Path, protocol: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    images = read_batch(_write(tmp_path, pickle.dumps({"data": data, "labels": [1, 2, 3]}, protocol=protocol)))
    assert torch.equal(images, torch.from_numpy(data).view(3, 3, 32, 32))


class _Runs:
    """Pickles to a call of a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_calls_os_system_runs_nothing(tmp_path: Path, protocol: int) -> None:
    import os

    witness = tmp_path / "ran"
    content = pickle.dumps({"data": _Runs(os.system, f"touch {witness}")}, protocol=protocol)
    assert any(opcode.name in {"GLOBAL", "STACK_GLOBAL"} for opcode, _, _ in pickletools.genops(content))
    with pytest.raises(
        DataError, match=r"asks for \w+\.system, which no CIFAR-10 batch holds: nothing was run"
    ) as error:
        read_batch(_write(tmp_path, content))
    _one_line(error)
    assert not witness.exists()
    pickle.loads(content)  # the trap is real: the standard reader springs it
    assert witness.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"(S'true'\niposix\nsystem\n.",  # INST
        b"(cposix\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x04\x8c\x05numpy\x8c\x05ctypeslib.load_library\x93.",
        b"\x80\x02cnumpy\nload\n(S'x'\ntR.",
        b"\x80\x02cnumpy.core.multiarray\nfromfile\n.",
        b"cinvattn.experiments.kit.data.publishers\nread_batch\n.",
        b"\x80\x02c_codecs\nlookup\n.",
        b"\x80\x02c_codecs\nencode\n(U\x01aU\x03zipt\x52.",
        b"Pname\n.",  # a persistent id
        b"\x82\x01.",  # an extension code
    ],
)
def test_every_other_name_and_way_to_name_it_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError) as error:
        read_batch(_write(tmp_path, content))
    assert "data_batch_1" in _one_line(error)


def test_a_file_cannot_spoil_the_next_one(tmp_path: Path) -> None:
    # BUILD on the stand-ins themselves, to overwrite their attributes
    spoil = b"\x80\x02cnumpy\nndarray\n(N}U\x0c__setstate__K\x05stb."
    with pytest.raises(DataError):
        read_batch(_write(tmp_path, spoil))
    data = np.zeros((1, 3072), dtype=np.uint8)
    assert read_batch(_write(tmp_path, pickle.dumps({"data": data}, protocol=2))).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("kept", [0, 1, 10, 100, 3000, -1])
def test_a_truncated_file_is_one_line(tmp_path: Path, kept: int) -> None:
    content = pickle.dumps({"data": np.zeros((2, 3072), dtype=np.uint8)}, protocol=2)
    with pytest.raises(DataError, match=r"no whole CIFAR-10 batch .* fetch cifar-10-python.tar.gz again") as error:
        read_batch(_write(tmp_path, content[:kept]))
    _one_line(error)


@pytest.mark.parametrize(
    "content",
    [
        {"labels": [1]},
        [1, 2],
        {"data": [1, 2]},
        {"data": np.zeros((2, 3072), dtype=np.float32)},
        {"data": np.zeros((2, 3072), dtype=np.int8)},
        {"data": np.zeros((2, 100), dtype=np.uint8)},
        {"data": np.zeros(6144, dtype=np.uint8)},
        {"data": np.zeros((0, 3072), dtype=np.uint8)},
        {"data": np.asfortranarray(np.zeros((2, 3072), dtype=np.uint8))},
        {"data": np.array([[None] * 3072])},
    ],
)
def test_other_content_is_one_line(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError, match="is no CIFAR-10 batch") as error:
        read_batch(_write(tmp_path, pickle.dumps(content, protocol=3)))
    _one_line(error)


def test_a_text_file_and_a_missing_file_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_batch(_write(tmp_path, b"<html>\n<body>404 not found\n"))
    _one_line(error)
    with pytest.raises(DataError, match="No such file") as error:
        read_batch(tmp_path / "absent")
    _one_line(error)
