"""Every bijection obeys the laws of bijections."""

from __future__ import annotations

import pytest
import torch

from invattn.logdet import Exact
from invattn.testing import check_bijection

from .registry import BIJECTIONS, CERTIFIED, CHAINS, SOME_CERTIFIED, AnyCase, BijectionCase


@pytest.mark.parametrize("case", [*CERTIFIED, *CHAINS], ids=str)
def test_block(case: AnyCase) -> None:
    block = case.block(seed=5, log_det_estimator=Exact())
    check_bijection(block, case.inputs(2), log_det_tolerance=1e-9, fresh=case.block(seed=6))


@pytest.mark.parametrize("case", [*SOME_CERTIFIED, *CHAINS], ids=str)
def test_block_in_single_precision(case: AnyCase) -> None:
    block = case.block(seed=7, dtype=torch.float32, log_det_estimator=Exact())
    check_bijection(block, case.inputs(2, dtype=torch.float32), log_det_tolerance=1e-4)


@pytest.mark.parametrize("case", BIJECTIONS, ids=str)
def test_bijection(case: BijectionCase) -> None:
    check_bijection(case.make(8), case.inputs(), log_det_tolerance=1e-9, fresh=case.make(18))


@pytest.mark.parametrize("case", [case for case in BIJECTIONS if case.name != "squeeze"], ids=str)
def test_bijection_in_single_precision(case: BijectionCase) -> None:
    check_bijection(case.make(9).float(), case.inputs().float(), log_det_tolerance=1e-4)
