"""Numbers and names as a reader sees them.

Rounding never makes a figure look better than it is where that would mislead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from invattn import _kinds

MISSING = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_ten(exponent: int) -> str:
    """Return ``10⁻³`` for -3."""
    return f"10{str(exponent).translate(_SUPERSCRIPT)}" if exponent else "1"


def scientific(value: float, *, digits: int = 3, plain: bool = False) -> str:
    """Return a number with one digit before the point, such as ``1.555×10⁻⁶``, or ``1.555e-6`` if ``plain``."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    if plain:
        return f"{mantissa}e{int(exponent)}"
    return f"{mantissa}×{power_of_ten(int(exponent))}"


def error(value: float | None, *, digits: int = 3, plain: bool = False) -> str:
    """Return a mean squared error: decimals as in the paper, or powers of ten where those would show nothing.

    ``digits`` are decimals from 1 on, significant digits below 1, decimals of the factor before a power of ten.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0.0:
        return "0"
    if 1e3 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    if 1e-3 <= abs(value) < 1e3:
        return f"{value:.{digits}f}" if abs(value) >= 1.0 else f"{value:.{digits}g}"
    return scientific(value, digits=digits, plain=plain)


def decimals(value: float | None, *, missing: str = MISSING) -> str:
    """Return a number with three decimals, as the paper prints SSIM; ``missing`` for None or what is not finite."""
    return missing if value is None or not math.isfinite(value) else f"{value:.3f}"


def magnitude(value: float) -> str:
    """Return an error of which only the order matters, such as ``2×10⁻⁶``; what is not finite gives a dash."""
    return scientific(value, digits=0) if math.isfinite(value) and value > 0 else error(value)


def share(value: float | None, *, decimals: int = 3) -> str:
    """Return a share in per cent, rounded down so that only a share of exactly 1 reads 100%."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 1.0:
        return "100%" if decimals == 0 else f"{100:.{decimals}f}%"
    scale = 10**decimals
    # The small term keeps a share such as 0.29 (28.999999999999996 per cent in floating point) at its own value.
    steps = math.floor(value * 100 * scale + 1e-6)
    return f"{(min(steps, 100 * scale - 1) if value < 1.0 else steps) / scale:.{decimals}f}%"


def bound(value: float | None) -> str:
    """Return a Lipschitz bound, rounded up and never to 1 when it is below 1."""
    if value is None or not math.isfinite(value):
        return MISSING
    for decimals in (4, 6, 9, 12):
        # The small term undoes the rounding of value * scale itself, far below the last digit shown.
        text = f"{math.ceil(value * 10**decimals - 1e-6) / 10**decimals:.{decimals}f}"
        if float(text) < 1.0 or value >= 1.0:
            return text
    return repr(value)


def certificate(values: Mapping[str, Any] | None) -> str:
    """Return the bound of a certificate with its norm, such as ``0.9000 (∞,2)``, or ``none``."""
    if not values:
        return "none"
    return f"{bound(values.get('bound'))} ({str(values.get('norm')).replace('inf', '∞')})"


def setting(value: Any) -> str:
    """Return the value of an option."""
    if value is None:
        return "default"
    return ", ".join(str(entry) for entry in value) if isinstance(value, list) else str(value)


def count(value: float | None, *, decimals: int = 0) -> str:
    """Return a count, or a mean of counts with decimals."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:,.{decimals}f}"


def mean_and_most(mean: float | None, most: float | None) -> str:
    """Return a mean count and the largest one, such as ``8.2 / 11``."""
    return f"{count(mean, decimals=1)} / {count(most)}"


def duration(seconds: float | None) -> str:
    """Return a wall time in seconds, minutes or hours."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


KINDS = {name: kind.label for name, kind in _kinds.KINDS.items()} | {"pointwise": "Pointwise (control)"}

MIXERS = KINDS | {
    "uniform": "Uniform pooling (control)",
    "convolution": "One more convolution (control)",
    "none": "No attention (control)",
}
"""What may stand between the tokens of a flow: the attention kinds and further controls."""

DETECTORS = {"none": "Base (no attention)"} | KINDS
"""What may stand at each level of the network that finds camouflaged objects."""

RECIPES = {
    "certified": "Certified",
    "strict": "Strict",
    "paper": "Paper",
    "released": "Released",
    "released_generative": "Released, generative",
    "unconstrained": "Unconstrained",
}

DATASETS = {
    "cifar10": "CIFAR-10",
    "svhn": "SVHN",
    "celeba": "CelebA",
    "photos": "photographs",
    "digits": "handwritten digits",
}


def kind(name: str) -> str:
    """Return the reader's name of an attention kind; an unknown one stands as it is."""
    return MIXERS.get(name, name)


def recipe(name: str) -> str:
    """Return the reader's name of a recipe; an unknown one stands as it is."""
    return RECIPES.get(name, name)


def variant(attention: str, recipe_name: str) -> str:
    """Return the reader's name of an attention kind in a recipe, such as ``Gaussian, certified``."""
    return f"{kind(attention)}, {recipe(recipe_name).lower()}"


def dataset(name: str) -> str:
    """Return the reader's name of a data set; an unknown one, such as a folder, stands as it is."""
    return DATASETS.get(name, name)


def size(image_size: int | str) -> str:
    """Return an image size as ``32×32``, ``218×178`` or ``original size``."""
    text = str(image_size)
    if text.isdecimal():
        return f"{text}×{text}"
    return "original size" if text == "original" else text.replace("x", "×")


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the distinct names, known ones first and in the order of ``known``, then the others as they came."""
    given = list(dict.fromkeys(names))
    order = list(known)
    return [name for name in order if name in given] + [name for name in given if name not in order]
