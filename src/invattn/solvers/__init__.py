"""Solvers of x + g(x) = z."""

from invattn.solvers.anderson import Adaptive as Adaptive
from invattn.solvers.anderson import Anderson as Anderson
from invattn.solvers.base import Solver as Solver
from invattn.solvers.implicit import attach_gradient as attach_gradient
from invattn.solvers.implicit import fold_into_batch as fold_into_batch
from invattn.solvers.newton_krylov import NewtonKrylov as NewtonKrylov
from invattn.solvers.picard import Picard as Picard
from invattn.solvers.solution import Solution as Solution
from invattn.solvers.solution import Status as Status
