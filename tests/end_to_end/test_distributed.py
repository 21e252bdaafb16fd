"""A certified flow under distributed training: equal gradients, kill -9, resumption to equal weights."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.skipif(
    os.name != "posix" or not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="needs fork, SIGKILL and a torch with gloo",
)

SCRIPT = Path(__file__).with_name("distributed_flow.py")
STEPS = 20
EPOCH = 4  # steps
LIMIT = 240  # seconds, for a run that hangs; one needs about five
ROUNDING = 1e-11  # float64: another order of summation moves the weights by 7e-15 in 20 steps
WARNINGS = (
    "error",
    # Raised by torch itself at the first torch.func.jvp of a process.
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning",
)


def run(folder: Path, *options: str, kill_at: str | None = None) -> tuple[int, str]:
    """Run the script to its end, or until it says ``kill_at``; return its exit status and what it said."""
    command = [sys.executable, *(f"-W{warning}" for warning in WARNINGS), str(SCRIPT), str(folder), *options]
    said = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        watchdog = threading.Timer(LIMIT, os.killpg, (process.pid, signal.SIGKILL))
        watchdog.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                if kill_at is not None and kill_at in line:
                    os.killpg(process.pid, signal.SIGKILL)
            return process.wait(), "".join(said)
        finally:
            watchdog.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def load(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return state


def assert_equal(left: Any, right: Any) -> None:
    """Compare nested states bit for bit."""
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    else:
        assert left == right


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The last state of two processes that nothing disturbed, and what they said."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    status, said = run(folder)
    assert status == 0, said
    return load(folder), said


def test_two_processes_train_and_have_equal_gradients_at_every_step(
    uninterrupted: tuple[dict[str, Any], str],
) -> None:
    state, said = uninterrupted
    for rank in range(2):
        for step in range(STEPS):
            assert f"process {rank}: step {step}: 2 equal gradients\n" in said
    assert state["step"] == len(state["losses"]) == STEPS
    first, last = state["losses"][:EPOCH], state["losses"][-EPOCH:]
    assert sum(last) / EPOCH < sum(first) / EPOCH - 10  # nats a set; about 20 were measured


def test_a_call_that_bypasses_forward_is_noticed(tmp_path: Path) -> None:
    status, said = run(tmp_path, "--bypass-forward")
    assert status == 1
    assert "gradients differ between processes at step 0" in said
    assert not (tmp_path / "checkpoint.pt").exists()


def test_two_processes_do_what_one_does_with_the_whole_batch(
    tmp_path: Path, uninterrupted: tuple[dict[str, Any], str]
) -> None:
    status, said = run(tmp_path, "--processes=1")
    assert status == 0, said
    one, two = load(tmp_path), uninterrupted[0]
    assert one["model"].keys() == two["model"].keys()
    for name, weight in one["model"].items():
        torch.testing.assert_close(two["model"][name], weight, rtol=ROUNDING, atol=ROUNDING)
    assert two["losses"] == pytest.approx(one["losses"], rel=ROUNDING)


def test_killed_between_two_saves_and_resumed_it_reaches_equal_weights(
    tmp_path: Path, uninterrupted: tuple[dict[str, Any], str]
) -> None:
    # Process 1 stops before its backward pass, so that process 0 waits for its gradients when the signal comes.
    status, said = run(tmp_path, "--hold-at=7", kill_at="holding")
    assert status == -signal.SIGKILL, said
    assert load(tmp_path)["step"] == 5
    status, said = run(tmp_path, "--resume")
    assert status == 0, said
    assert all(f"process {rank}: resumed at step 5\n" in said for rank in range(2))
    assert "step 4:" not in said
    assert_equal(load(tmp_path), uninterrupted[0])


def test_killed_in_the_middle_of_a_save_it_resumes_from_the_one_before(
    tmp_path: Path, uninterrupted: tuple[dict[str, Any], str]
) -> None:
    status, said = run(tmp_path, "--die-at-save=10")
    assert status == 1
    assert "saved step 5\n" in said
    assert "saved step 10\n" not in said
    # A process that dies by SIGKILL cannot clean up: what it was writing is still there, and nobody reads it.
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    assert load(tmp_path)["step"] == 5
    status, said = run(tmp_path, "--resume")
    assert status == 0, said
    assert "process 0: resumed at step 5\n" in said
    assert_equal(load(tmp_path), uninterrupted[0])
