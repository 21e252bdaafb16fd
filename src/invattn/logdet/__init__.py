"""Estimators of log|det(I + J_g)|."""

from invattn.logdet.base import LogDetEstimate as LogDetEstimate
from invattn.logdet.base import LogDetEstimator as LogDetEstimator
from invattn.logdet.exact import Exact as Exact
from invattn.logdet.linearised import Linearisable as Linearisable
from invattn.logdet.linearised import Transpose as Transpose
from invattn.logdet.linearised import linearised_by_graph as linearised_by_graph
from invattn.logdet.power_series import PowerSeries as PowerSeries
from invattn.logdet.russian_roulette import RussianRoulette as RussianRoulette
from invattn.logdet.shard import WHOLE as WHOLE
from invattn.logdet.shard import Shard as Shard
from invattn.logdet.tokenwise import TokenwiseExact as TokenwiseExact
