"""How much a bijection stretches and shrinks distances, and how that composes."""

from __future__ import annotations

from dataclasses import dataclass

from invattn.norms import conversion


@dataclass(frozen=True)
class BiLipschitz:
    """lower |x - y|_in <= |f(x) - f(y)|_out <= upper |x - y|_in for all x, y.

    Attributes:
        lower: The lower constant; 1 / lower bounds the Lipschitz constant of the inverse.
        upper: The upper constant.
        norm_in: Name of the norm of inputs.
        norm_out: Name of the norm of outputs.
        steps: What each part contributes, in the order of application, in words.

    References:
        docs/theory.md, "Composition".
    """

    lower: float
    upper: float
    norm_in: str
    norm_out: str
    steps: tuple[str, ...] = ()

    def then(self, following: BiLipschitz, *, tokens: int) -> BiLipschitz:
        """Return the constants of ``following`` after this map.

        Args:
            following: The constants of the next map; where its norm is another one, the change is charged.
            tokens: Number of tokens between the two maps.
        """
        grow = conversion(self.norm_out, following.norm_in, tokens=tokens)
        back = conversion(following.norm_in, self.norm_out, tokens=tokens)
        change: tuple[str, ...] = ()
        if self.norm_out != following.norm_in:
            change = (f"|.|_{{{self.norm_out}}} to |.|_{{{following.norm_in}}}: [{1 / back:.6g}, {grow:.6g}]",)
        return BiLipschitz(
            lower=self.lower / back * following.lower,
            upper=self.upper * grow * following.upper,
            norm_in=self.norm_in,
            norm_out=following.norm_out,
            steps=(*self.steps, *change, *following.steps),
        )

    def inverse(self) -> BiLipschitz:
        """Return the constants of f^{-1}."""
        return BiLipschitz(
            lower=1 / self.upper,
            upper=1 / self.lower,
            norm_in=self.norm_out,
            norm_out=self.norm_in,
            steps=("inverse of:", *self.steps),
        )

    @property
    def derivation(self) -> str:
        """The chain, one part a line."""
        return "\n".join(self.steps)

    def __str__(self) -> str:
        return (
            f"{self.lower:.6g} |x - y|_{{{self.norm_in}}} <= |f(x) - f(y)|_{{{self.norm_out}}} <= "
            f"{self.upper:.6g} |x - y|_{{{self.norm_in}}}"
        )


def isometry(norm: str) -> BiLipschitz:
    """Return the constants of a map that changes no distance in this norm."""
    return BiLipschitz(lower=1.0, upper=1.0, norm_in=norm, norm_out=norm)
