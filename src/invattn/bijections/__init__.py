"""Maps with an inverse and a log-determinant."""

from invattn.bijections.act_norm import ActNorm as ActNorm
from invattn.bijections.base import Bijection as Bijection
from invattn.bijections.closed_form import ChannelMap as ChannelMap
from invattn.bijections.closed_form import ClosedForm as ClosedForm
from invattn.bijections.composed import Composed as Composed
from invattn.bijections.constant_memory import ConstantMemory as ConstantMemory
from invattn.bijections.data_dependent import DataDependent as DataDependent
from invattn.bijections.data_dependent import initialize as initialize
from invattn.bijections.diagnose import diagnose as diagnose
from invattn.bijections.drift import BlockDrift as BlockDrift
from invattn.bijections.drift import Drift as Drift
from invattn.bijections.histogram import HistogramNormal as HistogramNormal
from invattn.bijections.inverse import Inverse as Inverse
from invattn.bijections.layout import ImageLayout as ImageLayout
from invattn.bijections.layout import to_tokens as to_tokens
from invattn.bijections.linear import Linear1x1 as Linear1x1
from invattn.bijections.linear import Whitening as Whitening
from invattn.bijections.log_det_report import LogDetReport as LogDetReport
from invattn.bijections.logit import Logit as Logit
from invattn.bijections.reshape import Reshape as Reshape
from invattn.bijections.residual import ResidualBijection as ResidualBijection
from invattn.bijections.spline import MonotoneSpline as MonotoneSpline
from invattn.bijections.split import AffinePrior as AffinePrior
from invattn.bijections.split import Split as Split
from invattn.bijections.squeeze import Squeeze as Squeeze
from invattn.bijections.with_log_det import WithLogDet as WithLogDet
