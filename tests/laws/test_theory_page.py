"""docs/theory.md: every number on it has a check that computes it, and every section the code names is there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import theory_comparisons
from .theory_constants import CHECKS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "theory.md"

# A number and the name of its check, which Markdown does not show: 1.073<!--two_cluster_gap-->
NUMBER = r"[-−]?\d+(?:\.\d+)?(?:e[-−]?\d+)?"
MARKED = re.compile(rf"(?<![\w.])(?P<number>{NUMBER})<!--(?P<name>\w+)(?::(?P<arguments>[^>]*))?-->")
# For code blocks, which show comments: a line below names the check and repeats the number.
ABOVE = re.compile(r"<!--above (?P<name>\w+) (?P<number>\S+)-->")
# What is a label and no constant.
LABELS = re.compile(
    r"(Theorem|Lemmas?|Corollary|Sec\.|App\.|Eq\.|Table|[Cc]ondition|remedy) [A-F]?\.?\d*(\.\d+)*( and \d+)?"
    r"|Corollaries [\d., ]+|\b(19|20)\d\d\b|(float|bfloat|TF)\d+|\bL\d\b|\]\([^)]*\)|`[^`]*`|^\d+\. ",
    re.MULTILINE,
)
SMALL = {"0", "1", "2"}


@dataclass(frozen=True)
class Constant:
    """One number of the page."""

    number: str
    name: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}({','.join(self.arguments)})={self.number}"

    @property
    def value(self) -> float:
        return float(self.number.replace("−", "-"))

    @property
    def tolerance(self) -> float:
        """Half a unit of the last printed digit, and float64's rounding where the page has all digits."""
        digits, _, exponent = self.number.replace("−", "-").partition("e")
        decimals = len(digits.partition(".")[2])
        return 0.5 * 10.0 ** (float(exponent or 0) - decimals) + 2.3e-16 * abs(self.value)

    def compute(self) -> float:
        return CHECKS[self.name](*(_argument(text) for text in self.arguments))


def _argument(text: str) -> float | str:
    return text if text[0].isalpha() else float(text)


def constants(page: str) -> list[Constant]:
    """Return every marked number."""
    found = [
        Constant(match["number"], match["name"], tuple(filter(None, (match["arguments"] or "").split(","))))
        for match in MARKED.finditer(page)
    ]
    return found + [Constant(match["number"], match["name"], ()) for match in ABOVE.finditer(page)]


def unmarked(page: str) -> list[str]:
    """Return the numbers of a page that are neither marked, nor labels, nor 0, 1 or 2."""
    parts = re.split(r"\n\n", page)
    for position, part in enumerate(parts):
        for match in ABOVE.finditer(part):
            before = parts[position - 1]
            parts[position - 1] = re.sub(rf"(?<![\d.]){re.escape(match['number'])}(?![\d.])", "", before, count=1)
            assert parts[position - 1] != before, f"{match['number']} is not in the block above {match['name']}."
    text = LABELS.sub("", re.sub(r"<!--.*?-->", "", MARKED.sub("", "\n\n".join(parts))))
    numbers = re.findall(r"\d+(?:\.\d+)?(?:e[-−]?\d+)?|[³⁴⁵⁶⁷⁸⁹]", text)
    return [number for number in numbers if number not in SMALL]


TEXT = PAGE.read_text(encoding="utf-8")
CONSTANTS = constants(TEXT)
CHECKED = list(dict.fromkeys(constant for constant in CONSTANTS if constant.name != "given"))


@pytest.mark.parametrize("constant", CHECKED, ids=str)
def test_a_printed_constant_is_what_its_check_computes(constant: Constant) -> None:
    assert abs(constant.compute() - constant.value) <= constant.tolerance


def test_every_number_has_a_check_and_every_check_a_number() -> None:
    assert unmarked(TEXT) == []
    assert {constant.name for constant in CHECKED} == set(CHECKS)
    assert theory_comparisons.check is not None
    assert len(CHECKED) > 50
    # What is chosen, not computed: few values, and plain ones.
    given = {constant.number for constant in CONSTANTS if constant.name == "given"}
    assert given <= {
        "0.5",
        "0.9",
        "−0.9",
        "0.01",
        "1e-3",
        "1e-6",
        "1.1",
        "3",
        "4",
        "5",
        "16",
        "24",
        "256",
        "512",
        "9701",
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1.073<!--", "1.072<!--"),
        ("153<!--", "154<!--"),
        ("2.232428648257508<!--", "2.232428648257510<!--"),
        ("−4.0544<!--", "4.0544<!--"),
        ("<!--above theorem_r_four 4-->", "<!--above theorem_r_four 5-->"),
    ],
)
def test_a_wrong_digit_is_found(old: str, new: str) -> None:
    assert old in TEXT
    changed = [constant for constant in constants(TEXT.replace(old, new)) if constant not in CONSTANTS]
    assert changed
    assert all(abs(constant.compute() - constant.value) > constant.tolerance for constant in changed)


@pytest.mark.parametrize("added", ["It is 0.37 at most.", "| 17 |", "x³", "1.5e-3 of it", "(1−τ²)^{3/2}"])
def test_a_number_without_a_check_is_found(added: str) -> None:
    assert len(unmarked(f"{TEXT}\n\n{added}\n")) == 1


# What code and documents call sections and theorems of the page.

NAMED = re.compile(r'docs/theory\.md,\s+"([^"]+)"')
PROVED = re.compile(r"(Theorems?|Lemmas?) ([\w, ]+?) of docs/theory\.md")
SOURCES = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]


def references() -> list[tuple[str, str, str]]:
    """Return (file, what is named, its name)."""
    found = []
    for path in SOURCES:
        text = re.sub(r"\n\s*", " ", path.read_text(encoding="utf-8"))
        found += [(path.name, "section", name) for name in NAMED.findall(text)]
        for kind, names in PROVED.findall(text):
            found += [(path.name, kind.rstrip("s"), name) for name in re.split(r", | and ", names)]
    return found


def test_what_the_code_names_is_on_the_page() -> None:
    headings = set(re.findall(r"^## (.+)$", TEXT, flags=re.MULTILINE))
    statements = set(re.findall(r"\*\*((?:Theorem|Lemma) \w+)", TEXT)) | headings
    assert len(references()) > 10
    for file, kind, name in references():
        if kind == "section":
            assert name in headings, f'{file} names the section "{name}".'
        else:
            assert f"{kind} {name}" in statements, f"{file} names {kind} {name}."
    assert {"Theorem R", "Theorem H", "Theorem 1", "Lemma 1", "Lemma 2", "Lemma 3", "Lemma 4"} <= statements


def test_sections_that_documents_name_are_on_the_page() -> None:
    headings = re.findall(r"^## (.+)$", TEXT, flags=re.MULTILINE)
    named = re.findall(r'"([A-Z][^"]+)"', (ROOT / "docs" / "results" / "strength.md").read_text().split("sections")[-1])
    assert {"Theorem R", "The paper's Theorem 1", "Other normalisations"} == set(named) <= set(headings)
    for name in re.findall(r'see "([A-Z][^"]+)"', TEXT):
        assert name in headings
