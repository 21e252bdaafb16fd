"""Measure from which size on each back end of attention beats the plain formula: what the dispatch table is made of.

    python benchmarks/backend_thresholds.py --output thresholds-output [--forms exp-row elu+1-row-sum] [--repeats 5]

A form is kernel-normalisation, with -sum for additive scores. A size is tokens x batch. Every back end that can compute
a form takes its turn beside the formula over the whole batch, in one process, on one thread; ratios are medians of the
rounds, in seconds of the processor. The operations: value; gradient by tokens; derivative along a direction; and the
training step of a log-determinant (five gradients, one second-order product, its gradient by tokens and weights).
Rows that are measured are kept in OUTPUT, so that the same command goes on where it was stopped; at the end
docs/results/backend_thresholds.md and .json (numbers only) are written. Some twenty minutes.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import invattn
from invattn._files import atomic_write, read_json, write_json
from invattn.experiments.kit.sources import source_hash
from invattn.functional import BACKENDS, Response, attend, get_kernel, response_weights
from invattn.functional.dispatch import check_backend

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
FORMS = (
    "exp-row",
    "exp-column",
    "exp-total",
    "elu+1-row",
    "elu+1-column",
    "softplus-row",
    "elu+1-row-sum",
    "elu+1-column-sum",
    "softplus-row-sum",
)
SIZES = ("64x64", "128x64", "256x64", "256x1", "512x1", "1024x1", "2048x1", "4096x1")
FORMULA, CHOSEN = "formula", "chosen"
GRADIENTS = 5
FOLDERS = {"--output", "--results"}


@dataclass(frozen=True)
class Case:
    """One form at one size."""

    form: str
    tokens: int
    batch: int
    channels: int = 12

    @property
    def response(self) -> Response:
        kernel, normalize, *rest = self.form.split("-")
        return Response(get_kernel(kernel), normalize=normalize, additive=rest == ["sum"])

    def draw(self) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return tokens, the weights of queries, keys and values, and a direction."""
        generator = torch.Generator().manual_seed(0)
        width = 1 if self.response.additive else self.channels
        x, along = (torch.randn(self.batch, 1, self.tokens, self.channels, generator=generator) for _ in range(2))
        weights = [
            torch.randn(self.channels, size, generator=generator) / self.channels**0.5
            for size in (width, width, self.channels)
        ]
        return x, weights, along

    def function(self, name: str) -> Callable[..., Tensor]:
        """Return attention as a function of tokens and weights, by the formula or by a back end."""
        response = self.response

        def apply(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
            query, key, value = (x @ weight for weight in weights)
            if name == FORMULA:
                return response_weights(query, key, response=response) @ value
            return attend(query, key, value, response=response, backend=None if name == CHOSEN else name)

        return apply

    def backends(self, device: str = "cpu") -> list[str]:
        """Return the back ends that can compute this form on a type of device."""
        found = []
        for name in BACKENDS:
            try:
                check_backend(Response(**{**vars(self.response), "backend": name}), device=device)
            except ValueError:
                continue
            found.append(name)
        return found


@torch.no_grad()
def value(apply: Callable[..., Tensor], x: Tensor, weights: list[Tensor], along: Tensor) -> None:
    apply(x, weights)


def gradient(apply: Callable[..., Tensor], x: Tensor, weights: list[Tensor], along: Tensor) -> None:
    x = x.clone().requires_grad_()
    torch.autograd.grad(apply(x, weights), x, along)


def derivative(apply: Callable[..., Tensor], x: Tensor, weights: list[Tensor], along: Tensor) -> None:
    torch.func.jvp(lambda tokens: apply(tokens, weights), (x,), (along,))


def log_det(apply: Callable[..., Tensor], x: Tensor, weights: list[Tensor], along: Tensor) -> None:
    x, weights = x.clone().requires_grad_(), [weight.clone().requires_grad_() for weight in weights]
    image, vector = apply(x, weights), along
    for _ in range(GRADIENTS):
        (vector,) = torch.autograd.grad(image, x, vector, retain_graph=True)
    (back,) = torch.autograd.grad(image, x, along, create_graph=True)
    torch.autograd.grad((back * along).sum(), [x, *weights])


OPERATIONS = {"value": value, "gradient": gradient, "derivative": derivative, "log-det": log_det}


def measure(case: Case, *, repeats: int, operations: Sequence[str]) -> dict[str, Any]:
    """Return the seconds of the formula and, for every back end, how many times faster it is."""
    names = [FORMULA, *case.backends(), CHOSEN]
    drawn, functions = case.draw(), {name: case.function(name) for name in names}
    result: dict[str, Any] = {"form": case.form, "tokens": case.tokens, "batch": case.batch, "operations": {}}
    for operation in operations:
        run, seconds = OPERATIONS[operation], {name: list[float]() for name in names}
        for repeat in range(repeats + 1):  # the first round is not counted
            for name in names:
                start = time.process_time()
                run(functions[name], *drawn)
                if repeat:
                    seconds[name].append(time.process_time() - start)
        result["operations"][operation] = {
            "seconds": statistics.median(seconds[FORMULA]),
            "speed": {
                name: statistics.median(a / b for a, b in zip(seconds[FORMULA], seconds[name], strict=True))
                for name in names[1:]
            },
        }
    return result


def markdown(content: Mapping[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# Back ends of attention against the formula",
        "",
        "How many times faster than softmax(q k^T) v (or its form with another kernel) over the whole batch; float32, "
        f"12 channels, one thread, seconds of the processor, medians of {content['repeats']} rounds in turn. `chosen` "
        "is what the dispatch table takes. The log-det step is five gradients, a second-order product and the gradient "
        "of that.",
        "",
    ]
    for form in dict.fromkeys(row["form"] for row in content["rows"]):
        rows = [row for row in content["rows"] if row["form"] == form]
        names = list(next(iter(rows[0]["operations"].values()))["speed"])
        lines += [f"## {form}", "", f"| tokens x batch | operation | formula | {' | '.join(names)} |"]
        lines.append("|---" * (3 + len(names)) + "|")
        for row in rows:
            for operation, found in row["operations"].items():
                speeds = " | ".join(f"{found['speed'][name]:.2f}x" for name in names)
                size = f"{row['tokens']} x {row['batch']}"
                lines.append(f"| {size} | {operation} | {1000 * found['seconds']:.1f} ms | {speeds} |")
        lines.append("")
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    lines += [f"Command: `{content['command']}`; {versions}.", ""]
    return "\n".join(lines)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--operations", nargs="+", choices=list(OPERATIONS), default=list(OPERATIONS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True, help="folder of the rows that are measured")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the table."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parse(given)
    torch.set_num_threads(1)
    rows = []
    settings = {"repeats": options.repeats, "operations": list(options.operations)}
    settings |= {"code": source_hash("invattn.functional"), "torch": torch.__version__}
    options.output.mkdir(parents=True, exist_ok=True)
    for form in options.forms:
        for size in options.sizes:
            tokens, batch = (int(number) for number in size.split("x"))
            name, path = f"{form}, {tokens} tokens, batch {batch}", options.output / f"{form}-{tokens}x{batch}.json"
            kept = read_json(path) if path.exists() else {}
            known = kept.get("settings") == settings
            if not known:
                row = measure(Case(form, tokens, batch), repeats=options.repeats, operations=options.operations)
                write_json(path, kept := {"settings": settings, "row": row})
            rows.append(kept["row"])
            print(f"{name}: {'measured before, kept' if known else 'measured'}", flush=True)
    # The folders are no part of what was measured.
    shown = [word for before, word in zip(["", *given], given, strict=False) if not {before, word} & FOLDERS]
    content = {
        "schema_version": 1,
        "command": " ".join(["python benchmarks/backend_thresholds.py", *shown]),
        "repeats": options.repeats,
        "versions": {"invattn": invattn.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "rows": rows,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    write_json(options.results / "backend_thresholds.json", content)
    atomic_write(options.results / "backend_thresholds.md", markdown(content).encode())
    print(f"table: {options.results / 'backend_thresholds.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
