"""The attention branches."""

from invattn.branches.attention.certified import CertifiedAttention as CertifiedAttention
from invattn.branches.attention.masks import RelativePositionLogits as RelativePositionLogits
from invattn.branches.attention.masks import Visibility as Visibility
from invattn.branches.attention.relaxed import RelaxedAttention as RelaxedAttention
from invattn.branches.attention.relaxed import TanhGate as TanhGate
from invattn.branches.attention.rules import AttentionRule as AttentionRule
from invattn.branches.attention.rules import Theorem1 as Theorem1
from invattn.branches.attention.rules import TheoremR as TheoremR
from invattn.branches.attention.scores import Score as Score
from invattn.branches.attention.scores import make_score as make_score
