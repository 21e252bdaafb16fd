import io
import re

import pytest
from rich.console import Console

from invattn.experiments.kit.terminal import BarProgress, LineProgress, progress_for


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_at_the_start_after_the_interval_and_at_the_end() -> None:
    clock, text = Clock(), io.StringIO()
    progress = LineProgress(Console(file=text, width=30), interval=10.0, clock=clock)
    progress.begin("training [gaussian], certified, repeat 1", total=40)
    progress.advance(10, note="loss 0.9")
    clock.now += 10
    progress.advance(10)
    progress.message("[a message] that is longer than the width of the console")
    clock.now += 2.5
    progress.end()
    progress.end()
    assert text.getvalue().splitlines() == [
        "training [gaussian], certified, repeat 1 ...",
        "training [gaussian], certified, repeat 1: 20 of 40 loss 0.9",
        "[a message] that is longer than the width of the console",
        "training [gaussian], certified, repeat 1: 12.5 s, loss 0.9",
    ]


def test_a_new_task_ends_the_one_before() -> None:
    text = io.StringIO()
    progress = LineProgress(Console(file=text), clock=Clock())
    progress.begin("one", total=1)
    progress.begin("two", total=1)
    assert text.getvalue().splitlines() == ["one ...", "one: 0.0 s", "two ..."]


def test_a_bar_is_replaced_by_one_line() -> None:
    text = io.StringIO()
    progress = BarProgress(Console(file=text, force_terminal=True, width=120))
    progress.begin("training [x]", total=3)
    progress.advance(note="loss 0.5")
    progress.advance(2)
    progress.message("[half] way")
    progress.end()
    progress.advance()
    progress.begin("testing", total=1)
    progress.end()
    shown = text.getvalue()
    assert "training [x] " in shown
    assert "3/3" in shown
    assert "[half] way" in shown
    assert re.search(r"training \[x\]: \d+\.\d s, loss 0\.5\n", shown)
    assert re.search(r"testing: \d+\.\d s\n", shown)


@pytest.mark.parametrize(("terminal", "kind"), [(True, BarProgress), (False, LineProgress)])
def test_the_console_decides(terminal: bool, kind: type) -> None:
    assert isinstance(progress_for(Console(file=io.StringIO(), force_terminal=terminal)), kind)
