"""The words and the order in which attention kinds, recipes and data sets appear to a reader."""

from __future__ import annotations

from collections.abc import Iterable

KINDS = {
    "gaussian": "Gaussian",
    "embedded_gaussian": "Embedded Gaussian",
    "dot_product": "Dot-product",
    "concatenation": "Concatenation",
    "pointwise": "Pointwise (control)",
}

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

GLOSSARY = {
    "certified": (
        "Queries, keys and values are squashed to the unit ball, every output position is a softmax average of "
        "values, and the last layer is scaled with exact norms so that the residual branch has a proven Lipschitz "
        "bound below 1 in the norm stated. Such a block is invertible for every input."
    ),
    "strict": (
        "Equations 5 and 6 of the paper: the last layer is scaled by the constants of Theorem 1, with squashed "
        "queries, keys and values so that the theorem's conditions hold."
    ),
    "paper": (
        "Section 2.4 of the paper as printed: every column of the response map sums to 1, the value and the last "
        "convolution have Lipschitz constant 0.9 by power iteration. The response itself is not bounded, so "
        "nothing is proven."
    ),
    "released": (
        "What the authors' published reconstruction code computes: query and key exchanged, weights that sum to "
        "1/1.5, ELU where a non-negative function is asked for. Nothing is proven."
    ),
    "released_generative": (
        "The published generative code: all entries of the response map together sum to 1/1.5, which makes the "
        "block nearly the identity for many positions. Nothing is proven."
    ),
    "unconstrained": (
        "Ordinary attention as in Table 1 and Fig. 1 of the paper, without any constraint: the baseline, not "
        "meant to be inverted."
    ),
}


def kind(name: str) -> str:
    """Return the reader's name of an attention kind; an unknown one stands as it is."""
    return MIXERS.get(name, name)


def recipe(name: str) -> str:
    """Return the reader's name of a recipe; an unknown one stands as it is."""
    return RECIPES.get(name, name)


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
