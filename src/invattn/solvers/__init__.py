"""Solvers of x + g(x) = z."""

from invattn.solvers.anderson import Adaptive as Adaptive
from invattn.solvers.anderson import Anderson as Anderson
from invattn.solvers.base import Solution as Solution
from invattn.solvers.base import Solver as Solver
from invattn.solvers.base import Status as Status
from invattn.solvers.inverse_gradient import ImplicitAdjoint as ImplicitAdjoint
from invattn.solvers.inverse_gradient import InverseGradient as InverseGradient
from invattn.solvers.inverse_gradient import Unrolled as Unrolled
from invattn.solvers.newton_krylov import NewtonKrylov as NewtonKrylov
from invattn.solvers.picard import Picard as Picard
