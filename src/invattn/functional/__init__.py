"""Pure tensor functions."""

from invattn.functional.attention import attend as attend
from invattn.functional.attention import explain as explain
from invattn.functional.convolution import PADDINGS as PADDINGS
from invattn.functional.convolution import convolution_norm as convolution_norm
from invattn.functional.convolution import convolution_norm_method as convolution_norm_method
from invattn.functional.convolution import convolution_token_norm as convolution_token_norm
from invattn.functional.convolution import convolve as convolve
from invattn.functional.dense import NORMALIZATIONS as NORMALIZATIONS
from invattn.functional.dense import Response as Response
from invattn.functional.dense import response_weights as response_weights
from invattn.functional.dispatch import BACKENDS as BACKENDS
from invattn.functional.dispatch import Choice as Choice
from invattn.functional.kernels import KERNELS as KERNELS
from invattn.functional.kernels import Kernel as Kernel
from invattn.functional.kernels import get_kernel as get_kernel
from invattn.functional.kernels import log_elu_plus_one as log_elu_plus_one
from invattn.functional.kernels import log_softplus as log_softplus
from invattn.functional.rearrange import squash as squash
from invattn.functional.rearrange import squeeze as squeeze
from invattn.functional.rearrange import unsqueeze as unsqueeze
from invattn.functional.spectral import power_iteration as power_iteration
from invattn.functional.spectral import spectral_norm as spectral_norm
