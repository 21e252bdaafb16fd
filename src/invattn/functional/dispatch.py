"""Which back end computes an attention: a table of measured thresholds, a rule for memory, and what can do what.

Thresholds are those of one thread of a processor; `benchmarks/backend_thresholds.py` measures them again. None was
measured on a GPU: there the formula is used until it is out of the question, except that sums are sorted.
`benchmarks/gpu.py` measures the back ends beside the formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from invattn._errors import check_name
from invattn.functional.dense import Response
from invattn.functional.fused import PRIMITIVES, fused_kernels_work
from invattn.functional.sorted_attention import PIECE_KERNELS

BACKENDS = ("dense", "fused", "streamed", "sorted")
"""dense: the formula. fused: kernels that hold no scores. streamed: tiles. sorted: O(N log N), concatenation only."""

MEMORY_BUDGET = 2**30
"""Bytes that the dense form may take; beyond them a back end with memory O(N) is chosen whatever its speed."""

ALWAYS_STREAMED = 2**22
"""Scores of one sample, over all heads, from which on the dense form is not used (N > 2048)."""


@dataclass(frozen=True)
class Case:
    """What a choice depends on; sizes where they are known, since few obstacles come from them.

    Attributes:
        response: Kernel, normalisation and kind of scores.
        batch: Samples times heads.
        heads: H.
        queries: N.
        keys: M.
        itemsize: Bytes of a number.
        order: Highest order of derivative that may be taken: 0 where nothing records gradients, else 2.
        device: Type of the device; None where it is not known yet.
        width: Channels of a head: of factors or of values, whatever is more.
        masked: There is a mask.
        causal: Query i sees keys 0 ... i.
        biased: There is a logit bias.
        compiling: torch.compile is tracing.
    """

    response: Response
    batch: int = 1
    heads: int = 1
    queries: int = 1
    keys: int = 1
    itemsize: int = 4
    order: int = 2
    device: str | None = "cpu"
    width: int = 1
    masked: bool = False
    causal: bool = False
    biased: bool = False
    compiling: bool = False

    @property
    def scores(self) -> int:
        """Entries of all attention maps together."""
        return self.batch * self.queries * self.keys


@dataclass(frozen=True)
class Choice:
    """A back end, and why.

    Attributes:
        backend: Its name.
        reason: Why it was chosen, in words.
        scores: Entries of all attention maps together.
        memory: Estimate of what is needed beyond inputs and outputs at the highest order of derivative, in bytes.
    """

    backend: str
    reason: str
    scores: int
    memory: int

    def __str__(self) -> str:
        return f"{self.backend}: {self.reason}; {self.scores:,} scores, about {self.memory / 2**20:,.1f} MiB"


@dataclass(frozen=True)
class Entry:
    """One line of the table: from which size on a back end was measured to be faster than the dense form.

    Attributes:
        backend: Its name.
        kernels: Kernels it is right for.
        additive: Whether scores are sums.
        normalize: Normalisations it is right for.
        order: Highest order of derivative it is right for.
        tokens: The least sqrt(N M).
        batch: The least number of samples times heads.
        device: The type of device it is right for, or None for any.
    """

    backend: str
    kernels: tuple[str, ...]
    additive: bool
    normalize: tuple[str, ...]
    order: int
    tokens: int
    batch: int = 1
    device: str | None = None

    def is_of(self, kernel: str, additive: bool, normalize: str) -> bool:
        """Whether the line speaks of such weights."""
        return kernel in self.kernels and additive == self.additive and normalize in self.normalize

    def fits(self, case: Case) -> bool:
        """Whether a line that speaks of the weights of a case speaks of its size."""
        return (
            case.order <= self.order
            and case.queries * case.keys >= self.tokens**2
            and case.batch >= self.batch
            and self.device in (None, case.device)
        )


_PIECES = tuple(PIECE_KERNELS)
_SHARED = ("row", "column", "total")

TABLE = (
    # "total" was not measured: it is one sum more than "row".
    *(
        Entry("sorted", _PIECES, additive=True, normalize=("row", "total"), order=2, tokens=tokens, batch=batch)
        for tokens, batch in ((650, 1), (400, 4), (256, 16), (150, 32))
    ),
    *(
        Entry("sorted", _PIECES, additive=True, normalize=("column",), order=2, tokens=tokens, batch=batch)
        for tokens, batch in ((750, 1), (500, 4), (200, 32))
    ),
    Entry("fused", ("exp",), additive=False, normalize=("row",), order=0, tokens=700, device="cpu"),
    Entry("fused", ("exp",), additive=False, normalize=("row",), order=0, tokens=128, batch=32, device="cpu"),
    Entry("fused", ("exp",), additive=False, normalize=("row",), order=2, tokens=1000, device="cpu"),
    Entry("streamed", ("exp",), additive=False, normalize=("column",), order=0, tokens=1000, device="cpu"),
    Entry("streamed", ("exp",), additive=False, normalize=("column",), order=2, tokens=1500, device="cpu"),
    Entry(
        "streamed",
        ("elu+1", "softplus"),
        additive=False,
        normalize=("row", "column"),
        order=0,
        tokens=1500,
        device="cpu",
    ),
    Entry("streamed", ("softplus",), additive=True, normalize=("row", "column"), order=0, tokens=1500, device="cpu"),
)
"""The first line that fits a case decides; where none does the dense form is used.

On a GPU only the lines of what costs less than N^2 hold; they too were measured on a processor.
"""


@cache
def _lines(kernel: str, additive: bool, normalize: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in TABLE if entry.is_of(kernel, additive, normalize))


_LEAN = ("sorted", "fused", "streamed")  # with memory O(N), the quickest first


def choose(case: Case, forced: str | None = None) -> Choice:
    """Return the back end of a case.

    Args:
        case: What is to be computed.
        forced: The name of the back end that must be used, or None.

    Raises:
        ValueError: If the forced one is unknown, or cannot do this.
    """
    if forced is not None:
        _require(forced, case)
        return _made(forced, "asked for by name", case, _dense_memory(case))
    dense = _dense_memory(case)
    limit = _too_large(case, dense)
    if case.compiling:
        if limit is None:
            return _made("dense", "torch.compile traces the formula", case, dense)
        return _made("streamed", limit, case, dense)
    for entry in _lines(case.response.kernel.name, case.response.additive, case.response.normalize):
        if entry.fits(case) and _obstacle(entry.backend, case) is None:
            return _made(entry.backend, f"faster from {entry.tokens} tokens on, {_batches(entry.batch)}", case, dense)
    if limit is None:
        return _made("dense", "the quickest for so few tokens", case, dense)
    lean = next(name for name in _LEAN if _obstacle(name, case) is None)
    return _made(lean, limit, case, dense)


def check_backend(
    response: Response,
    *,
    masked: bool = False,
    causal: bool = False,
    biased: bool = False,
    device: str | None = None,
) -> None:
    """Raise ValueError if a response names a back end that does not exist or cannot compute it on a type of device.

    None for the device asks whether any could.
    """
    if response.backend is not None:
        _require(response.backend, Case(response, device=device, masked=masked, causal=causal, biased=biased))


def _require(name: str, case: Case) -> None:
    """Raise ValueError if there is no back end of this name, or it cannot do a case."""
    obstacle = _obstacle(check_name(name, BACKENDS, what="back end"), case)
    if obstacle is not None:
        raise ValueError(f"the back end {name!r} {obstacle}. Use backend='streamed', or None to have one chosen.")


def _obstacle(name: str, case: Case) -> str | None:
    """Return why a back end cannot do a case, or None where it can."""
    response = case.response
    if name == "sorted":
        if not response.additive or response.kernel.name not in PIECE_KERNELS or response.normalize == "count":
            return (
                f"needs additive scores (concatenation), kernel {' or '.join(PIECE_KERNELS)}, and normalisation "
                f"{', '.join(_SHARED)}; got {_words(response)}"
            )
        if case.masked or case.causal or case.biased:
            return "knows no mask, no causal order and no logit bias"
    return _fused_obstacle(case) if name == "fused" else None


def _fused_obstacle(case: Case) -> str | None:
    response = case.response
    devices = PRIMITIVES if case.device is None else {case.device} & PRIMITIVES.keys()
    if not devices:
        return f"runs on {' and '.join(PRIMITIVES)} alone; this is {case.device}"
    known = tuple(dict.fromkeys(kernel for device in devices for kernel in PRIMITIVES[device].kernels))
    if response.additive or response.kernel.name not in known or response.normalize not in ("row", "column"):
        there = "" if case.device is None else f" on {case.device}"
        return (
            f"needs product scores, kernel {' or '.join(known)}{there}, and normalisation row or column; got "
            + _words(response)
        )
    if case.masked or case.biased:
        return "knows no mask and no logit bias"
    if case.causal and (response.normalize != "row" or case.queries != case.keys):
        return "knows a causal order only for rows and as many queries as keys"
    if case.device is None:
        return None
    limit = PRIMITIVES[case.device].obstacle(case.itemsize, case.width)
    if limit is not None:
        return limit
    if not fused_kernels_work(case.device, response.kernel.name):
        return f"needs fused kernels that work on {case.device}: torch's own for processors, Triton for cuda"
    return None


def _too_large(case: Case, dense: int) -> str | None:
    """Return why the dense form is out of the question, or None."""
    if case.heads * case.queries * case.keys > ALWAYS_STREAMED:
        return f"more than {ALWAYS_STREAMED:,} scores a sample"
    if dense > MEMORY_BUDGET:
        return f"the dense form would take {dense / 2**20:,.0f} MiB"
    return None


def _dense_memory(case: Case) -> int:
    """Bytes of the dense form: score matrices alive at one time, as measured, times their size.

    Without gradients they are those of one chunk of the batch.
    """
    copies = {"exp": (2, 11)}.get(case.response.kernel.name, (3.3, 14.3))[case.order > 0]
    together = case.scores if case.order else max(case.heads * case.queries * case.keys, min(case.scores, 2**18))
    return int(copies * together * case.itemsize)


def _made(name: str, reason: str, case: Case, dense: int) -> Choice:
    tokens = case.batch * (case.queries + case.keys) * case.itemsize
    memory = {"dense": dense, "sorted": 100 * tokens}.get(name, 20 * 2**18 * case.itemsize + 30 * tokens)
    return Choice(name, reason, case.scores, memory)


def _batches(least: int) -> str:
    return "any batch" if least == 1 else f"{least} maps or more"


def _words(response: Response) -> str:
    scores = "additive scores" if response.additive else "product scores"
    return f"{scores}, kernel {response.kernel.name}, normalisation {response.normalize}"
