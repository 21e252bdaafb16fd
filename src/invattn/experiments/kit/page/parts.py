"""What a part of the page consists of; the template knows how each looks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from invattn.experiments.kit.page import formatting


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One picture as a ``data:`` address, with marks (left in per cent, top in per cent, label) on it."""

    uri: str
    alt: str
    caption: str = ""
    failed: bool = False
    marks: tuple[tuple[float, float, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """A labelled row of pictures; ``kind`` names the attention kind, and is empty for originals."""

    label: str
    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Rows of pictures under one title; ``pixels`` says that the pictures are small and shown pixel by pixel."""

    title: str
    rows: tuple[Row, ...]
    heads: tuple[str, ...] = ()
    pixels: bool = True

    @property
    def columns(self) -> int:
        """Number of pictures in the longest row."""
        return max(len(row.cells) for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart under its title."""

    title: str
    svg: Markup


@dataclass(frozen=True, kw_only=True)
class Key:
    """One entry of a legend: the colour variable of the page and the words for it."""

    role: str
    label: str
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A colour bar: a CSS gradient and the labels below it, each with its place in per cent from the left."""

    gradient: str
    ticks: tuple[tuple[float, str], ...]
    title: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """A section of the page; its heading and words stand in the template, sentences on what is missing here."""

    anchor: str
    strips: tuple[Strip, ...] = ()
    panels: tuple[Panel, ...] = ()
    keys: tuple[Key, ...] = ()
    scale: Scale | None = None
    left_out: tuple[str, ...] = ()


def kind_keys(names: Iterable[str]) -> tuple[Key, ...]:
    """Return the legend of the attention kinds, in the usual order."""
    return tuple(Key(role=name, label=formatting.kind(name)) for name in formatting.in_order(names, formatting.MIXERS))
