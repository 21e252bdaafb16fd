"""Pure tensor functions."""

from invattn.functional.attention import NORMALIZATIONS as NORMALIZATIONS
from invattn.functional.attention import Response as Response
from invattn.functional.attention import attend as attend
from invattn.functional.attention import response_weights as response_weights
from invattn.functional.convolution import PADDINGS as PADDINGS
from invattn.functional.convolution import convolve as convolve
from invattn.functional.convolution_norm import convolution_norm as convolution_norm
from invattn.functional.convolution_norm import convolution_norm_method as convolution_norm_method
from invattn.functional.convolution_norm import convolution_token_norm as convolution_token_norm
from invattn.functional.kernels import KERNELS as KERNELS
from invattn.functional.kernels import Kernel as Kernel
from invattn.functional.kernels import get_kernel as get_kernel
from invattn.functional.kernels import log_elu_plus_one as log_elu_plus_one
from invattn.functional.kernels import log_softplus as log_softplus
from invattn.functional.krylov import arnoldi as arnoldi
from invattn.functional.krylov import orthogonalise as orthogonalise
from invattn.functional.spectral import gram_norm as gram_norm
from invattn.functional.spectral import log_top_eigenvalue as log_top_eigenvalue
from invattn.functional.spectral import power_iteration as power_iteration
from invattn.functional.spectral import spectral_norm as spectral_norm
from invattn.functional.squash import squash as squash
from invattn.functional.squeeze import squeeze as squeeze
from invattn.functional.squeeze import unsqueeze as unsqueeze
