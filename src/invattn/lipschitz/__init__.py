"""Proven Lipschitz bounds, and the constrained maps of the paper."""

from invattn.lipschitz.activations import ACTIVATIONS as ACTIVATIONS
from invattn.lipschitz.activations import Activation as Activation
from invattn.lipschitz.activations import Elementwise as Elementwise
from invattn.lipschitz.activations import LeakyReLU as LeakyReLU
from invattn.lipschitz.activations import LipSwish as LipSwish
from invattn.lipschitz.activations import make_activation as make_activation
from invattn.lipschitz.bound import BiLipschitz as BiLipschitz
from invattn.lipschitz.bound import Factor as Factor
from invattn.lipschitz.bound import LipschitzBound as LipschitzBound
from invattn.lipschitz.bound import isometry as isometry
from invattn.lipschitz.bound import product_bound as product_bound
from invattn.lipschitz.constrained import ConstrainedLinear as ConstrainedLinear
from invattn.lipschitz.theorems import ROUNDING as ROUNDING
from invattn.lipschitz.theorems import attention_constant as attention_constant
from invattn.lipschitz.theorems import column_constant as column_constant
from invattn.lipschitz.theorems import exp_spread as exp_spread
from invattn.lipschitz.theorems import output_constant as output_constant
from invattn.lipschitz.theorems import theorem_1 as theorem_1
from invattn.lipschitz.theorems import total_constant as total_constant
