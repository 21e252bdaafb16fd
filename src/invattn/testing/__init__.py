"""The laws that every bijection, branch, solver and estimator obeys, for your own ones too.

Each function raises AssertionError with one clear message where a law is broken; no test runner is needed.
"""

from invattn.testing.bijection import check_bijection as check_bijection
from invattn.testing.bijection import check_inverse_gradient as check_inverse_gradient
from invattn.testing.branch import check_branch as check_branch
from invattn.testing.log_det import check_log_det_estimator as check_log_det_estimator
from invattn.testing.log_det import check_log_det_mean as check_log_det_mean
from invattn.testing.memory import PeakMemory as PeakMemory
from invattn.testing.oracles import dense_jacobian as dense_jacobian
from invattn.testing.solver import check_solver as check_solver
