"""What a branch does near given points: its Jacobian's spectrum, how it stretches, and whether f = x + g(x) folds."""

from invattn.diagnosis.jacobian import DominantEigenvalue as DominantEigenvalue
from invattn.diagnosis.jacobian import FoldDirection as FoldDirection
from invattn.diagnosis.jacobian import det_sign as det_sign
from invattn.diagnosis.jacobian import dominant_eigenvalue as dominant_eigenvalue
from invattn.diagnosis.jacobian import fold_direction as fold_direction
from invattn.diagnosis.jacobian import spectral_norm_estimate as spectral_norm_estimate
from invattn.diagnosis.jacobian import spectral_radius as spectral_radius
from invattn.diagnosis.report import REASONS as REASONS
from invattn.diagnosis.report import Checks as Checks
from invattn.diagnosis.report import Diagnosis as Diagnosis
from invattn.diagnosis.report import diagnose_branch as diagnose_branch
from invattn.diagnosis.second_preimage import SecondPreimages as SecondPreimages
from invattn.diagnosis.second_preimage import SecondPreimageSearch as SecondPreimageSearch
from invattn.diagnosis.second_preimage import second_preimages as second_preimages
from invattn.diagnosis.stretch import Ascent as Ascent
from invattn.diagnosis.stretch import local_stretch as local_stretch
