"""Every branch obeys the laws of branches."""

from __future__ import annotations

import pytest

from invattn.testing import check_branch

from .registry import BRANCHES, CHAINS, AnyCase, BlockCase, random_tokens, seeded


@pytest.mark.parametrize("case", [*BRANCHES, *CHAINS], ids=str)
def test_branch(case: AnyCase) -> None:
    check_branch(case.branch(seed=3), case.inputs(2), generator=seeded(0))


@pytest.mark.parametrize("case", [case for case in BRANCHES if case.sees == "all" and case.num_heads == 1], ids=str)
def test_branch_of_one_token(case: BlockCase) -> None:
    check_branch(case.branch(seed=4, tokens=1), random_tokens(2, tokens=1), generator=seeded(0))
