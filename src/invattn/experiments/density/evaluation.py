"""Evaluate a stored flow: its likelihood of test samples, and its inverse on them and far from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from invattn._errors import DataError
from invattn._files import write_json
from invattn.bijections import Bijection
from invattn.experiments.density.config import EvaluateOptions
from invattn.experiments.density.data import DensityData, DequantisedData, GeneratedData
from invattn.experiments.density.images import load_density_images
from invattn.experiments.density.likelihood import TARGET_ERROR, compare, measure_likelihood
from invattn.experiments.density.measure import ImportanceBound, importance_bound, inputs_of_test, measure, unmeasured
from invattn.experiments.density.points import PLANE
from invattn.experiments.density.record import DensityResult
from invattn.experiments.density.stored import open_flow, read_stored_data
from invattn.experiments.kit.data.dequantise import dequantise
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.output import check_output, library_versions, make_folder
from invattn.experiments.kit.progress import Progress, task_of
from invattn.experiments.kit.record import SCHEMA_VERSION
from invattn.experiments.kit.training.loader import derive_seed
from invattn.flows import Flow
from invattn.hub import FlowConfig, ImageFlowConfig

FAR = (10.0, 1000.0)
"""Factors by which test samples are moved away from 0."""

_PHOTOS = "photos"


def stress_inputs(data: DensityData, *, count: int, seed: int) -> dict[str, Tensor]:
    """Return name -> inputs with shape (n, *event), n at most ``count``."""
    test = data.test()[:count]
    inputs = {f"test samples of {data.name}": test}
    generator = torch.Generator().manual_seed(derive_seed(seed, "stress"))
    uniform = torch.rand(test.shape, generator=generator)
    if isinstance(data, DequantisedData):
        inputs |= _other_images(data, count=count, seed=seed)
        inputs["uniform noise"] = uniform - 0.5
        inputs["one grey level for all pixels"] = (uniform.flatten(1)[:, :1] - 0.5).reshape(-1, 1, 1, 1).expand_as(test)
    else:
        reach = float(test.abs().max())
        inputs["uniform noise, as wide as the test samples"] = reach * (2 * uniform - 1)
        inputs["all numbers 0"] = torch.zeros_like(test)
    return inputs | {f"test samples, {factor:g} times as far from 0": factor * test for factor in FAR}


def _other_images(data: DequantisedData, *, count: int, seed: int) -> dict[str, Tensor]:
    """Return images of another kind: photographs, or the negatives of the test images where those are photographs."""
    index = torch.arange(min(count, data.test_size))
    if data.name == _PHOTOS:
        return {"negatives of the test images": -data.test()[: len(index)]}
    found = load_density_images(
        ImageRequest(
            _PHOTOS, data_root=None, train_size=1, test_size=len(index), image_size=data.event_shape[-1], seed=seed
        )
    )
    images = found.test
    if data.event_shape[0] == 1:
        images = images.float().mean(dim=1, keepdim=True).to(torch.uint8)
    images = (images.long() * data.levels // 256).to(torch.uint8)
    noise_seed = derive_seed(seed, "stress noise")
    return {"photographs": dequantise(images, seed=noise_seed, step=0, index=index, levels=data.levels)}


_BATCH = 50


@dataclass(frozen=True)
class InverseStress:
    """What came back of inputs of one kind.

    Attributes:
        name: What they are, in words.
        count: How many.
        converged: For how many the solver reached its tolerance.
        error_max: Largest |entry| of x - inverse(f(x)); infinite where something is not finite.
        relative_max: The same over max(1, largest |entry| of that x): rounding grows with x.
    """

    name: str
    count: int
    converged: int
    error_max: float
    relative_max: float


@torch.no_grad()
def inverse_stress(
    bijection: Bijection, x: Tensor, *, name: str, on_batch: Callable[[int], None] | None = None
) -> InverseStress:
    """Compute z = f(x) at finite inputs x with shape (n, ...), solve f(y) = z, and compare y with x.

    References:
        Behrmann et al. 2021, "Understanding and mitigating exploding inverses in invertible neural networks".
    """
    errors, converged = [], 0
    for part in torch.split(x, _BATCH):
        solution = bijection.solve(bijection(part))
        errors.append(compare(solution, part))
        converged += int(solution.converged.sum())
        if on_batch is not None:
            on_batch(len(part))
    error, scale = torch.cat(errors), x.abs().flatten(1).amax(dim=1).clamp_min(1.0)
    return InverseStress(name, len(x), converged, float(error.max()), float((error / scale).max()))


EVALUATION_FILE = "evaluation.json"


@dataclass(frozen=True)
class ModelEvaluation:
    """What was measured of a stored flow.

    Attributes:
        result: The metrics; variant is the name of its folder.
        data: What it was measured on.
        exact: Whether log-determinants are exact.
        inverses: The inverse on test samples and elsewhere, one entry for each kind of input.
        unbiased: Mean of -log p(x) / d by the unbiased estimator, in the unit of the metrics; None if not asked for.
        unbiased_error: The standard error that its probes add.
        bound: The importance-weighted bound, if it was asked for.
    """

    result: DensityResult
    data: DensityData
    exact: bool
    inverses: tuple[InverseStress, ...] = ()
    unbiased: float | None = None
    unbiased_error: float | None = None
    bound: ImportanceBound | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``evaluation.json``."""
        stored = self.result.to_json()
        return {
            "schema_version": SCHEMA_VERSION,
            "experiment": "density evaluation",
            "model": self.result.variant,
            "data": self.data.describe(),
            "seed": self.result.seed,
            "versions": library_versions("torchmetrics"),
            "exact": self.exact,
            "unbiased": self.unbiased,
            "unbiased_error": self.unbiased_error,
            "importance_bound": None if self.bound is None else vars(self.bound),
            "inverses": [vars(entry) for entry in self.inverses],
            **{name: stored[name] for name in ("metrics", "refused", "parameters", "certificate")},
        }


def evaluate_model(options: EvaluateOptions, progress: Progress) -> ModelEvaluation:
    """Measure a stored flow, and write ``evaluation.json`` where an output is given.

    Raises:
        DataError: If the folder holds no flow, or the data cannot be used or have another shape.
        CertificateError: If the model is not the one that was certified.
        OSError: If a file cannot be written.
    """
    if options.output is not None:
        check_output(options.output)
    flow, config = open_flow(options.model)
    data = evaluation_data(config, options)
    seed = data.seed if options.seed is None else options.seed
    if options.importance_samples and not isinstance(data, DequantisedData):
        raise DataError("--importance-samples is for images: points are not dequantised. Leave it out.")
    flow = flow.to("cuda" if torch.cuda.is_available() else "cpu")
    unknown, test = unmeasured(options.model.name, flow, seed=seed, unit=data.unit), inputs_of_test(flow, data)
    result, found = measure(flow, test, unknown, progress, seed=seed, unit=data.unit)
    evaluation = ModelEvaluation(result, data, found.exact, _inverses(flow, data, options.stress, seed, progress))
    if options.unbiased and found.exact and result.refused is None:
        # Once more, with random probes in the place of whole Jacobians.
        generator = torch.Generator(device=test.x.device).manual_seed(derive_seed(seed, "unbiased evaluation"))
        target, unit = TARGET_ERROR / data.unit.scale, data.unit
        found = measure_likelihood(flow, test.x, exact=False, target_error=target, cost=test.cost, generator=generator)
        error = unit.scale * found.estimator_error
        evaluation = replace(evaluation, unbiased=unit.of(found.mean), unbiased_error=error)
    if options.importance_samples and isinstance(data, DequantisedData) and result.refused is None:
        bound = importance_bound(flow, data, samples=options.importance_samples, seed=seed, progress=progress)
        evaluation = replace(evaluation, bound=bound)
    if options.output is not None:
        write_json(make_folder(options.output) / EVALUATION_FILE, evaluation.to_json())
    return evaluation


def _inverses(flow: Flow, data: DensityData, count: int, seed: int, progress: Progress) -> tuple[InverseStress, ...]:
    """Try the inverse on every kind of input."""
    if count == 0:
        return ()
    inputs = stress_inputs(data, count=count, seed=seed)
    device = next(flow.parameters()).device
    with task_of(progress, "invert", total=sum(map(len, inputs.values()))):
        return tuple(
            inverse_stress(flow.bijection, x.to(device), name=name, on_batch=progress.advance)
            for name, x in inputs.items()
        )


def evaluation_data(config: FlowConfig, options: EvaluateOptions) -> DensityData:
    """Return the data to evaluate a stored flow on; DataError if they do not fit it."""
    stored = read_stored_data(options.model)
    size, seed = options.test_size, options.seed
    if isinstance(config, ImageFlowConfig):
        side = config.image_shape[-1]
        images = stored.images(
            name=options.data, data_root=options.data_root, image_size=side, test_size=size, seed=seed
        )
        data: DensityData = replace(images, learned=config.dequantisation == "variational")
    else:
        name, known = options.data or str(stored.values.get("name", "sets")), ("sets", *PLANE)
        if name not in known:
            raise DataError(
                f"{options.model} is a flow over points, and {name} holds images. "
                f"Give --data one of {', '.join(known)}."
            )
        size = stored.number("test_size") if size is None else size
        data = GeneratedData(name, test_size=size, seed=stored.number("seed") if seed is None else seed)
    if data.event_shape != config.event_shape:
        found, wanted = (" x ".join(map(str, shape)) for shape in (data.event_shape, config.event_shape))
        raise DataError(
            f"{data.name} has samples of {found}; {options.model} is a flow over {wanted}. Name other data: --data."
        )
    return data
