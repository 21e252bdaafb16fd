"""Numbers as a reader sees them; rounding never makes a figure look better than it is where that would mislead."""

from __future__ import annotations

import math

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

    Args:
        value: The error; None or not finite gives a dash.
        digits: Decimals from 1 on, significant digits below 1, decimals of the factor before a power of ten.
        plain: Write powers of ten as ``e-6``.
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


def similarity(value: float | None) -> str:
    """Return an SSIM with three decimals, as in the paper."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.3f}"


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
