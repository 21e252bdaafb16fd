"""ALL: every bijection, branch, solver, estimator, kernel and normalisation that the laws are tried on.

A new one is done when it stands here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from invattn import ATTENTION_KINDS, KINDS, RECIPES, invertible_attention
from invattn.bijections import (
    ActNorm,
    AffinePrior,
    Bijection,
    Composed,
    ConstantMemory,
    HistogramNormal,
    Inverse,
    Linear1x1,
    Logit,
    MonotoneSpline,
    Reshape,
    ResidualBijection,
    Split,
    Squeeze,
    Whitening,
    initialize,
)
from invattn.branches import Branch, CertifiedConvolution, CertifiedMLP, Padding
from invattn.flows import IMAGE_MIXERS, TOKEN_MIXERS, MultiscaleIResNet, ResidualFlow, token_flow
from invattn.functional import KERNELS as ALL_KERNELS
from invattn.functional import NORMALIZATIONS as ALL_NORMALIZATIONS
from invattn.lipschitz import ConstrainedLinear
from invattn.logdet import Exact, LogDetEstimator, PowerSeries, RussianRoulette
from invattn.recipes import Certified, Recipe, Strict
from invattn.solvers import Adaptive, Anderson, NewtonKrylov, Picard, Solver

CHANNELS, TOKENS = 4, 3
KERNELS = ALL_KERNELS
NORMALIZATIONS = ALL_NORMALIZATIONS


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_tokens(
    batch: int = 3, tokens: int = TOKENS, *, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    return scale * torch.randn(batch, tokens, CHANNELS, dtype=dtype, generator=seeded(100 + seed))


def random_images(
    batch: int = 2, channels: int = CHANNELS, height: int = 3, width: int = 5, *, seed: int = 0
) -> Tensor:
    return torch.randn(batch, channels, height, width, dtype=torch.float64, generator=seeded(200 + seed))


def randomise(module: nn.Module, seed: int) -> None:
    """Draw every parameter anew: maps with norms of 2 to 4, so that every constraint binds."""
    generator = seeded(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            spread = 2 / math.sqrt(parameter.shape[-1]) if name.endswith("weight") else 0.5
            parameter.copy_(spread * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    for part in module.modules():
        if isinstance(part, ConstrainedLinear):
            part.train()
            for _ in range(10):
                part.scaled_weight()
            part.project() if part.enforce == "after_step" else None


@dataclass(frozen=True)
class BlockCase:
    """One attention block: what the laws that concern blocks are parametrised over."""

    kind: str
    recipe: str = "certified"
    num_heads: int = 1
    sees: str = "all"  # all, masked, causal or positions

    def __str__(self) -> str:
        return f"{self.recipe}-{self.kind}-{self.num_heads}-{self.sees}"

    def recipe_for(self, grid: tuple[int, ...]) -> str | Recipe:
        if self.recipe == "strict":  # an object only, without a name to choose it by
            return Strict()
        return Certified(position_grid=grid, self_logit=1.0) if self.sees == "positions" else self.recipe

    def block(
        self,
        *,
        grid: tuple[int, ...] = (TOKENS,),
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        lipschitz: float = 0.9,
        solver: Solver | None = None,
        log_det_estimator: LogDetEstimator | None = None,
        random: bool = True,
    ) -> Bijection:
        """Make the block in evaluation mode: tokens for a grid of one side, images for one of two."""
        tokens = math.prod(grid)
        made = invertible_attention(
            CHANNELS,
            kind=self.kind,
            recipe=self.recipe_for(grid),
            lipschitz=lipschitz,
            num_heads=self.num_heads,
            layout="tokens" if len(grid) == 1 else "image",
            solver=solver,
            log_det_estimator=log_det_estimator,
            mask=some_mask(tokens) if self.sees == "masked" else None,
            causal=self.sees == "causal",
        ).to(dtype)
        if random:
            randomise(made, seed)
        return made.eval()

    def branch(self, *, tokens: int = TOKENS, seed: int = 0, lipschitz: float = 0.9) -> Branch:
        return self.block(grid=(tokens,), seed=seed, lipschitz=lipschitz).branch

    def inputs(self, batch: int = 3, tokens: int = TOKENS, **options: Any) -> Tensor:
        return random_tokens(batch, tokens, **options)


@dataclass(frozen=True)
class ChainCase:
    """One certified convolution or MLP, with the same interface.

    Attributes:
        name: For the reader.
        make: Makes the branch for N tokens, or images of 2 x N pixels, with a coefficient.
        layout: "tokens" (B, N, C), "vectors" (B, C) or "images" (B, C, 2, N).
    """

    name: str
    make: Callable[[int, float], Branch]
    layout: str

    def __str__(self) -> str:
        return self.name

    def block(
        self,
        *,
        grid: tuple[int, ...] = (TOKENS,),
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        lipschitz: float = 0.9,
        solver: Solver | None = None,
        log_det_estimator: LogDetEstimator | None = None,
        random: bool = True,
    ) -> Bijection:
        """Make the block in evaluation mode."""
        branch = self.make(grid[-1], lipschitz)
        made = ResidualBijection(branch, solver=solver, log_det_estimator=log_det_estimator).to(dtype)
        if random:
            randomise(made, seed)
        return made.eval()

    def branch(self, *, tokens: int = TOKENS, seed: int = 0, lipschitz: float = 0.9) -> Branch:
        return self.block(grid=(tokens,), seed=seed, lipschitz=lipschitz).branch

    def inputs(self, batch: int = 3, tokens: int = TOKENS, **options: Any) -> Tensor:
        drawn = random_tokens(batch, 2 * tokens, **options)
        if self.layout == "images":
            return drawn.mT.reshape(batch, CHANNELS, 2, tokens)
        return drawn[:, :tokens] if self.layout == "tokens" else drawn[:, 0]


AnyCase = BlockCase | ChainCase


def some_mask(tokens: int) -> Tensor:
    """A mask in which every row keeps a key and some rows lose some."""
    position = torch.arange(tokens)
    return (position[:, None] + 2 * position[None]) % 3 != 1


STRICT = [
    *(BlockCase(kind, "strict") for kind in KINDS),
    BlockCase("gaussian", "strict", sees="masked"),
    BlockCase("embedded_gaussian", "strict", num_heads=4),
    BlockCase("dot_product", "strict", num_heads=4, sees="causal"),
    BlockCase("concatenation", "strict", num_heads=4, sees="masked"),
]
CERTIFIED = [
    *(
        BlockCase(kind, num_heads=heads, sees=sees)
        for kind in ATTENTION_KINDS
        for heads in (1, 4)
        for sees in ("all", "masked", "causal", "positions")
    ),
    BlockCase("pointwise"),
    *STRICT,
]
PLAIN_CERTIFIED = [BlockCase(kind) for kind in KINDS]
SOME_CERTIFIED = [
    *PLAIN_CERTIFIED,
    BlockCase("gaussian", num_heads=4, sees="causal"),
    BlockCase("embedded_gaussian", num_heads=4, sees="positions"),
    BlockCase("dot_product", num_heads=4, sees="masked"),
    BlockCase("concatenation", num_heads=4),
    BlockCase("dot_product", "strict", num_heads=4, sees="causal"),
    BlockCase("concatenation", "strict"),
]
RELAXED = [
    BlockCase(kind, recipe, heads, sees)
    for recipe in RECIPES
    if recipe != "certified"
    for kind in KINDS
    for heads, sees in ((1, "all"), (4, "all"), (1, "causal"), (1, "masked"))
    if kind != "pointwise" or (heads, sees) == (1, "all")
]
EVERY_RECIPE_AND_KIND = [BlockCase(kind, recipe) for recipe in (*RECIPES, "strict") for kind in KINDS]
BRANCHES = CERTIFIED + RELAXED


def _convolution(mode: str, *, known: bool, **options: Any) -> Callable[[int, float], Branch]:
    def make(tokens: int, lipschitz: float) -> Branch:
        padding = Padding(mode, grid=(2, tokens) if known else None)
        return CertifiedConvolution(channels=CHANNELS, padding=padding, lipschitz=lipschitz, **options)

    return make


def _mlp(**options: Any) -> Callable[[int, float], Branch]:
    return lambda tokens, lipschitz: CertifiedMLP(channels=CHANNELS, lipschitz=lipschitz, **options)


CHAINS = [
    ChainCase("mlp", _mlp(hidden_channels=(6, 5)), "tokens"),
    ChainCase("mlp_vectors", _mlp(hidden_channels=(6,), activation="elu", activate_first=True, norm="2"), "vectors"),
    ChainCase("convolution", _convolution("zero", known=False, hidden_channels=5, kernel_sizes=(3, 1)), "images"),
    ChainCase(
        "convolution_grid",
        _convolution("zero", known=True, hidden_channels=5, activation="softplus", activate_first=True),
        "images",
    ),
    ChainCase(
        "convolution_circular",
        _convolution("circular", known=True, hidden_channels=3, kernel_sizes=(5, 3), activation="sin"),
        "images",
    ),
    ChainCase(
        "convolution_tokens",
        _convolution("zero", known=False, hidden_channels=5, activation="gelu", norm="inf,2"),
        "images",
    ),
]
"""Certified branches that are no attention; CERTIFIED, RELAXED and what is made of them are attention blocks."""
SOME_CHAINS = [case for case in CHAINS if case.name in ("mlp_vectors", "convolution", "convolution_tokens")]

SOLVERS: dict[str, Solver] = {
    "picard": Picard(max_steps=300),
    "picard_exact": Picard(max_steps=60, early_stop=False),
    "anderson": Anderson(),
    "adaptive": Adaptive(),
    "adaptive_refined": Adaptive(refine=2),
    "newton_krylov": NewtonKrylov(),
}


def with_max_steps(solver: Solver, max_steps: int) -> Solver:
    assert isinstance(solver, Picard | Anderson | Adaptive | NewtonKrylov)
    return replace(solver, max_steps=max_steps)


@dataclass(frozen=True)
class EstimatorCase:
    """An estimator and how many draws the laws average (1: it is exact)."""

    name: str
    estimator: Callable[[], LogDetEstimator]
    draws: int = 1

    def __str__(self) -> str:
        return self.name


ESTIMATORS = [
    EstimatorCase("exact", Exact),
    EstimatorCase("rademacher", lambda: PowerSeries(terms=12, generator=seeded(1)), draws=16 * 40),
    EstimatorCase(
        "roulette", lambda: RussianRoulette(exact_terms=3, p=0.6, probes=4, generator=seeded(3)), draws=16 * 12
    ),
    EstimatorCase(
        "gaussian", lambda: PowerSeries(terms=12, probes=2, probe="gaussian", generator=seeded(2)), draws=16 * 20
    ),
]


@dataclass(frozen=True)
class BijectionCase:
    """A bijection that is more than one block of tokens, and its inputs."""

    name: str
    make: Callable[[int], Bijection]
    inputs: Callable[[], Tensor]

    def __str__(self) -> str:
        return self.name


def _image_block(kind: str, seed: int, *, rows: int = 3, columns: int = 5) -> Bijection:
    return BlockCase(kind, num_heads=2).block(grid=(rows, columns), seed=seed, log_det_estimator=Exact())


def _exact_block(kind: str, seed: int) -> Bijection:
    return BlockCase(kind).block(seed=seed, log_det_estimator=Exact())


def _layer(layer: Bijection, seed: int) -> Bijection:
    """A layer in float64 with drawn parameters, and fitted to correlated data where it is fitted."""
    layer = layer.double()
    generator = seeded(300 + seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    if isinstance(layer, Whitening):
        mixing = torch.randn(CHANNELS, CHANNELS, dtype=torch.float64, generator=generator)
        layer.fit(torch.randn(50, CHANNELS, dtype=torch.float64, generator=generator) @ mixing + 1)
    if isinstance(layer, MonotoneSpline | HistogramNormal):
        layer.fit(torch.randn(60, CHANNELS, dtype=torch.float64, generator=generator))
    return layer


def _token_flow(attention: str, seed: int) -> Bijection:
    flow = token_flow(
        CHANNELS,
        attention=attention,
        blocks=1,
        attention_layers=1,
        hidden_channels=(5,),
        lipschitz=0.9,
        log_det_estimator=Exact(),
    ).double()
    randomise(flow, seed)
    return flow.eval()


def _image_flow(attention: str, seed: int) -> Bijection:
    flow = MultiscaleIResNet(
        (1, 4, 4),
        blocks=(1, 1),
        hidden_channels=4,
        attention=attention,
        attention_positions=[(0, 0), (1, 0)],
        lipschitz=0.9,
        kernel_sizes=(3, 1),
        whitening=2,
        prior_channels=3,
        channel_mixing=True,
        log_det_estimator=Exact(),
    ).double()
    _disturb(flow, seed)
    return flow.bijection.eval()


def _fitted_image_flow(seed: int) -> Bijection:
    """Everything that is fitted to data, on a single scale."""
    flow = MultiscaleIResNet(
        (1, 4, 4),
        blocks=(1,),
        hidden_channels=4,
        lipschitz=0.9,
        kernel_sizes=(3, 1),
        levels=3,
        whitening=4,
        whitening_reach=2.0,
        knots=4,
        channel_knots=3,
        log_det_estimator=Exact(),
    ).double()
    initialize(flow.bijection, random_images(40, 1, 4, 4, seed=seed).sigmoid() - 0.5)
    _disturb(flow, seed)
    return flow.bijection.eval()


def _vector_flow(seed: int) -> Bijection:
    flow = ResidualFlow(
        CHANNELS, blocks=2, hidden_channels=(5,), lipschitz=0.9, whitening=True, channel_mixing=True
    ).double()
    _disturb(flow, seed)
    return flow.bijection.eval()


def _disturb(module: nn.Module, seed: int) -> None:
    """Draw the weights of residual blocks anew and move the others: those have no bound to hold them together."""
    generator = seeded(400 + seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    for part in module.modules():
        if isinstance(part, ResidualBijection):
            randomise(part, seed)


def _split(prior: AffinePrior | None, seed: int) -> Bijection:
    rest = Composed([_image_block("embedded_gaussian", seed, rows=2, columns=2), Reshape((CHANNELS, 2, 2))])
    made = Split((CHANNELS + 2, 2, 2), rest, kept=CHANNELS, prior=prior).double()
    if prior is not None:
        _disturb(prior, seed)
    return made.eval()


BIJECTIONS = [
    BijectionCase("reshape", lambda seed: Reshape((CHANNELS, 3, 5), (5, 2 * CHANNELS // 2 * 3)), random_images),
    BijectionCase("split", lambda seed: _split(None, seed), lambda: random_images(2, CHANNELS + 2, 2, 2)),
    BijectionCase(
        "split_with_learned_prior",
        lambda seed: _split(AffinePrior(kept=CHANNELS, leaving=2, hidden_channels=3), seed),
        lambda: random_images(2, CHANNELS + 2, 2, 2),
    ),
    *(
        BijectionCase(f"image_flow_{name}", partial(_image_flow, name), lambda: random_images(2, 1, 4, 4))
        for name in IMAGE_MIXERS
    ),
    BijectionCase("vector_flow", _vector_flow, lambda: random_tokens(4)[:, 0]),
    BijectionCase("fitted_image_flow", _fitted_image_flow, lambda: random_images(2, 1, 4, 4).sigmoid() - 0.5),
    BijectionCase("act_norm_of_images", lambda seed: _layer(ActNorm(CHANNELS), seed), random_images),
    BijectionCase("act_norm_of_tokens", lambda seed: _layer(ActNorm(CHANNELS), seed), random_tokens),
    BijectionCase(
        "linear_1x1_of_images", lambda seed: _layer(Linear1x1(CHANNELS, generator=seeded(seed)), seed), random_images
    ),
    BijectionCase(
        "linear_1x1_of_vectors",
        lambda seed: _layer(Linear1x1(CHANNELS, generator=seeded(seed)), seed),
        lambda: random_tokens(4)[:, 0],
    ),
    BijectionCase("whitening_of_tokens", lambda seed: _layer(Whitening(CHANNELS), seed), random_tokens),
    BijectionCase("whitening_of_images", lambda seed: _layer(Whitening(CHANNELS), seed), random_images),
    BijectionCase("logit", lambda seed: Logit(low=-0.5, high=0.5), lambda: random_images().sigmoid() - 0.5),
    BijectionCase("spline_of_images", lambda seed: _layer(MonotoneSpline(CHANNELS, knots=5), seed), random_images),
    BijectionCase("spline_of_tokens", lambda seed: _layer(MonotoneSpline(CHANNELS, knots=2), seed), random_tokens),
    BijectionCase(
        "histogram_of_images",
        lambda seed: _layer(HistogramNormal(CHANNELS, levels=4, low=-1, high=2), seed),
        random_images,
    ),
    BijectionCase("histogram_of_tokens", lambda seed: _layer(HistogramNormal(CHANNELS, levels=1), seed), random_tokens),
    BijectionCase("squeeze", lambda seed: Squeeze(2), lambda: random_images(channels=1, height=4, width=6)),
    BijectionCase("image", lambda seed: _image_block("embedded_gaussian", seed), random_images),
    BijectionCase(
        "squeeze_and_block",
        lambda seed: Composed([Squeeze(2), _image_block("concatenation", seed, rows=1, columns=2)]),
        lambda: random_images(channels=1, height=2, width=4),
    ),
    BijectionCase(
        "residual_network",
        lambda seed: Composed(
            [
                CHAINS[2].block(seed=seed, log_det_estimator=Exact()),
                Squeeze(2),
                Inverse(Squeeze(2)),
                _image_block("gaussian", seed, rows=2, columns=4),
            ]
        ),
        lambda: random_images(height=2, width=4),
    ),
    BijectionCase(
        "three_blocks",
        lambda seed: Composed([_exact_block(kind, seed + i) for i, kind in enumerate(("gaussian", *KINDS[-2:]))]),
        random_tokens,
    ),
    BijectionCase("nothing", lambda seed: Composed([]), random_tokens),
    *(BijectionCase(f"token_flow_{name}", partial(_token_flow, name), random_tokens) for name in TOKEN_MIXERS),
    BijectionCase("inverse", lambda seed: Inverse(_exact_block("dot_product", seed)), random_tokens),
    BijectionCase(
        "there_and_back",
        lambda seed: Composed([_exact_block("gaussian", seed), Inverse(_exact_block("dot_product", seed))]),
        random_tokens,
    ),
    BijectionCase(
        "constant_memory",
        lambda seed: ConstantMemory(
            Composed(
                [
                    CHAINS[2].block(seed=seed, log_det_estimator=Exact()),
                    *(_image_block(kind, seed, rows=2, columns=4) for kind in ("gaussian", KINDS[-2])),
                ]
            )
        ),
        lambda: random_images(height=2, width=4),
    ),
]
