"""What a branch does near given points: estimates of the spectrum of its Jacobian."""

from invattn.diagnosis.spectrum import DominantEigenvalue as DominantEigenvalue
from invattn.diagnosis.spectrum import dominant_eigenvalue as dominant_eigenvalue
from invattn.diagnosis.spectrum import spectral_norm_estimate as spectral_norm_estimate
from invattn.diagnosis.spectrum import spectral_radius as spectral_radius
