"""Normalizing flows."""

from invattn.flows.dequantisation import Dequantisation as Dequantisation
from invattn.flows.dequantisation import Dequantised as Dequantised
from invattn.flows.dequantisation import UniformDequantisation as UniformDequantisation
from invattn.flows.dequantisation import VariationalDequantisation as VariationalDequantisation
from invattn.flows.dequantisation import bits_per_dimension as bits_per_dimension
from invattn.flows.flow import FLOW_SOLVER as FLOW_SOLVER
from invattn.flows.flow import ClassConditionalNormal as ClassConditionalNormal
from invattn.flows.flow import Flow as Flow
from invattn.flows.flow import StandardNormal as StandardNormal
from invattn.flows.multiscale import IMAGE_MIXERS as IMAGE_MIXERS
from invattn.flows.multiscale import ImageArchitecture as ImageArchitecture
from invattn.flows.multiscale import ImageOptions as ImageOptions
from invattn.flows.multiscale import MultiscaleIResNet as MultiscaleIResNet
from invattn.flows.residual_flow import ResidualFlow as ResidualFlow
from invattn.flows.residual_flow import VectorArchitecture as VectorArchitecture
from invattn.flows.token_flow import TOKEN_MIXERS as TOKEN_MIXERS
from invattn.flows.token_flow import TokenArchitecture as TokenArchitecture
from invattn.flows.token_flow import token_flow as token_flow
