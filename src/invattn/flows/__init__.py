"""Normalizing flows."""

from invattn.flows.base import StandardNormal as StandardNormal
from invattn.flows.flow import Flow as Flow
