"""Residual branches: the maps g of x + g(x)."""

from invattn.branches.attention import AttentionRule as AttentionRule
from invattn.branches.attention import CertifiedAttention as CertifiedAttention
from invattn.branches.attention import RelativePositionLogits as RelativePositionLogits
from invattn.branches.attention import RelaxedAttention as RelaxedAttention
from invattn.branches.attention import Score as Score
from invattn.branches.attention import TanhGate as TanhGate
from invattn.branches.attention import Theorem1 as Theorem1
from invattn.branches.attention import TheoremR as TheoremR
from invattn.branches.attention import Visibility as Visibility
from invattn.branches.attention import make_score as make_score
from invattn.branches.base import Branch as Branch
from invattn.branches.convolution import CertifiedConvolution as CertifiedConvolution
from invattn.branches.convolution import Padding as Padding
from invattn.branches.mlp import CertifiedMLP as CertifiedMLP
from invattn.branches.pointwise import CertifiedPointwise as CertifiedPointwise
from invattn.branches.pointwise import CertifiedPooling as CertifiedPooling
from invattn.branches.pointwise import RelaxedPointwise as RelaxedPointwise
