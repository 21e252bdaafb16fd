"""The exceptions that invattn raises for its users."""

from __future__ import annotations


class InvAttnError(Exception):
    """Base class of every error that invattn raises on purpose."""


class ConvergenceError(InvAttnError):
    """An inverse did not reach its tolerance for at least one sample."""


class CertificateError(InvAttnError):
    """A proven Lipschitz bound was asked for where there is none, or a stored one does not hold."""


class DataError(InvAttnError):
    """Input data or a file is missing, damaged or of the wrong kind."""
