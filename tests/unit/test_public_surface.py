"""What the library's packages make public, and how it is called."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from enum import Enum
from types import ModuleType

import pytest

PUBLIC = {
    "invattn": """
        ATTENTION_KINDS Bijection Block CertificateError Composed ConvergenceError DataError Flow InvAttnError
        KINDS LipschitzBound RECIPES ResidualBijection Solution Status WithLogDet attention_map diagnose
        invertible_attention
    """,
    "invattn.bijections": """
        ActNorm AffinePrior Bijection Block BlockDrift ChannelMap ClassAffine ClosedForm Composed
        ConstantMemory DataDependent Drift HistogramNormal ImageLayout Inverse Linear1x1 LogDetReport Logit
        MonotoneSpline PatchTaper Reshape ResidualBijection Split Squeeze Whitening WithLogDet diagnose
        initialize
    """,
    "invattn.branches": """
        AttentionRule Branch CertifiedAttention CertifiedConvolution CertifiedMLP CertifiedPointwise
        CertifiedPooling Padding RelativePositionLogits RelaxedAttention RelaxedPointwise Score TanhGate
        Theorem1 TheoremR Visibility make_score
    """,
    "invattn.diagnosis": """
        Ascent Checks Diagnosis DominantEigenvalue FoldDirection REASONS SecondPreimageSearch SecondPreimages
        det_sign diagnose_branch dominant_eigenvalue fold_direction local_stretch second_preimages
        spectral_norm_estimate spectral_radius
    """,
    "invattn.flows": """
        ClassConditionalNormal Dequantisation Dequantised FLOW_SOLVER Flow IMAGE_MIXERS ImageArchitecture
        ImageOptions MultiscaleIResNet ResidualFlow StandardNormal TOKEN_MIXERS TokenArchitecture
        UniformDequantisation VariationalDequantisation VectorArchitecture bits_per_dimension token_flow
    """,
    "invattn.functional": """
        BACKENDS Choice KERNELS Kernel NORMALIZATIONS PADDINGS Response attend convolution_norm
        convolution_norm_method convolution_token_norm convolve explain get_kernel log_elu_plus_one
        log_softplus power_iteration response_weights spectral_norm squash squeeze unsqueeze
    """,
    "invattn.hub": """
        BlockCertificate DEQUANTISATIONS FlowConfig ImageFlowConfig LoadedModel ModelConfig StoredConfig
        TokenFlowConfig VectorFlowConfig block_certificates certificate_of load_flow load_model read_model
        refuse save_model
    """,
    "invattn.lipschitz": """
        ACTIVATIONS Activation BiLipschitz ConstrainedLinear Elementwise Factor LeakyReLU LipSwish
        LipschitzBound ROUNDING attention_constant column_constant exp_spread isometry make_activation
        output_constant product_bound theorem_1 total_constant
    """,
    "invattn.logdet": """
        Exact LogDetEstimate LogDetEstimator PowerSeries RussianRoulette Shard TokenwiseExact
    """,
    "invattn.norms": """
        NORMS conversion count_tokens euclidean_norm get_dual_norm get_norm token_norm token_sum_norm
    """,
    "invattn.recipes": """
        ATTENTION_KINDS BlockShape Certified KINDS Paper RECIPES Recipe Released ReleasedGenerative Strict
        Unconstrained attention_map constrain_after_step convert_authors_state_dict invertible_attention
        make_recipe
    """,
    "invattn.solvers": """
        Adaptive Anderson ImplicitAdjoint InverseGradient NewtonKrylov Picard Solution Solver Status Unrolled
    """,
    "invattn.testing": """
        PeakMemory check_bijection check_branch check_inverse_gradient check_log_det_estimator
        check_log_det_mean check_solver dense_jacobian
    """,
}
"""Every public name of the library: what the manual shows. A name that is added to a package is added here."""

POSITIONAL = """
    x z image query key value score weight bias matrix left right log_prob
    shape before after event_shape image_shape channels dimensions classes factor in_features out_features
    bijection bijections branch block tokens rest flow base dequantisation module model function estimator solver
    optimizer state_dict kind recipe name norm source target folder problems response
    slope factors output head_constants value_norm response_norm logit mu_r c_f mu_f c_r
"""
"""What may be given by position: tensors, shapes and sizes; what a call is about (a map, a name, a folder); the
numbers of a formula, in order. All else is given by name."""

RECORDS = (tuple, Exception, Enum)
"""Dataclasses and these are left out: their fields name themselves."""


def own_names(module: ModuleType) -> list[str]:
    """Return the public names of a module: what a package imports, or what a module without parts defines."""
    package = hasattr(module, "__path__")
    return [
        name
        for name, value in vars(module).items()
        if not (name.startswith("_") or inspect.ismodule(value) or name == "annotations")
        and (package or getattr(value, "__module__", module.__name__) == module.__name__)
    ]


@pytest.mark.parametrize("package", PUBLIC)
def test_nothing_is_public_by_accident(package: str) -> None:
    assert sorted(own_names(importlib.import_module(package))) == PUBLIC[package].split()


@pytest.mark.parametrize("package", PUBLIC)
def test_everything_after_tensors_and_shapes_is_given_by_name(package: str) -> None:
    module = importlib.import_module(package)
    for name in own_names(module):
        value = getattr(module, name)
        if inspect.isclass(value) and (dataclasses.is_dataclass(value) or issubclass(value, RECORDS)):
            continue
        if not inspect.isroutine(value) and not inspect.isclass(value):
            continue
        for parameter in inspect.signature(value).parameters.values():
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                assert parameter.name in POSITIONAL.split(), f"{package}.{name}({parameter.name})"


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_function_and_class_says_what_it_is(package: str) -> None:
    module = importlib.import_module(package)
    for name in own_names(module):
        value = getattr(module, name)
        if inspect.isroutine(value) or inspect.isclass(value):
            assert inspect.getdoc(value), f"{package}.{name}"
