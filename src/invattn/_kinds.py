"""The attention kinds: one line each, from which every recipe, command, flow and page takes what it needs.

No torch here: pages of finished runs read names and colours.
"""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """What is known of an attention kind.

    Attributes:
        score: Module below :mod:`invattn.branches.attention` and class of its :class:`invattn.branches.Score`.
        kernel: The kernel phi of the recipes with a proof; ``exp`` also in the others, which have one of their own for
            the rest.
        label: Its name on pages.
        colour: Its colour on pages, in light and in dark.
    """

    score: tuple[str, str]
    kernel: str
    label: str
    colour: tuple[str, str]


KINDS = {
    "gaussian": Kind(("scores", "GaussianScore"), "exp", "Gaussian", ("#0072b2", "#56b4e9")),
    "embedded_gaussian": Kind(("scores", "ProjectedScore"), "exp", "Embedded Gaussian", ("#d55e00", "#ff9d5c")),
    "dot_product": Kind(("scores", "ProjectedScore"), "elu+1", "Dot-product", ("#00875f", "#3fd6a3")),
    "concatenation": Kind(("scores", "ConcatenationScore"), "elu+1", "Concatenation", ("#a8438f", "#e79ad4")),
}
"""Name -> kind, in the order of the paper's Table 1."""
