"""Estimators of log|det(I + J_g)|."""

from invattn.logdet.base import LogDetEstimate as LogDetEstimate
from invattn.logdet.base import LogDetEstimator as LogDetEstimator
from invattn.logdet.exact import Exact as Exact
from invattn.logdet.exact import TokenwiseExact as TokenwiseExact
from invattn.logdet.power_series import PowerSeries as PowerSeries
from invattn.logdet.power_series import RussianRoulette as RussianRoulette
from invattn.logdet.power_series import Shard as Shard
