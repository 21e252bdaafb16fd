"""Normalizing flows."""

from invattn.flows.base import StandardNormal as StandardNormal
from invattn.flows.flow import Flow as Flow
from invattn.flows.token_flow import TOKEN_MIXERS as TOKEN_MIXERS
from invattn.flows.token_flow import token_flow as token_flow
