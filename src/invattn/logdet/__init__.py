"""Estimators of log|det(I + J_g)|."""

from invattn.logdet.base import WHOLE as WHOLE
from invattn.logdet.base import Linearisable as Linearisable
from invattn.logdet.base import LogDetEstimate as LogDetEstimate
from invattn.logdet.base import LogDetEstimator as LogDetEstimator
from invattn.logdet.base import Shard as Shard
from invattn.logdet.base import Transpose as Transpose
from invattn.logdet.base import linearised_by_graph as linearised_by_graph
from invattn.logdet.exact import Exact as Exact
from invattn.logdet.exact import TokenwiseExact as TokenwiseExact
from invattn.logdet.power_series import PowerSeries as PowerSeries
from invattn.logdet.russian_roulette import RussianRoulette as RussianRoulette
