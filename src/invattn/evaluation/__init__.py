"""How well a model inverts and explains a data set, and what its inverse does step by step."""

from invattn.evaluation.attention_maps import query_maps as query_maps
from invattn.evaluation.attention_maps import query_points as query_points
from invattn.evaluation.block_effects import BlockEffect as BlockEffect
from invattn.evaluation.block_effects import block_effects as block_effects
from invattn.evaluation.inverse_stress import InverseStress as InverseStress
from invattn.evaluation.inverse_stress import inverse_stress as inverse_stress
from invattn.evaluation.inversion import InversionReport as InversionReport
from invattn.evaluation.inversion import invert_images as invert_images
from invattn.evaluation.latent_walk import interpolate as interpolate
from invattn.evaluation.likelihood import TARGET_ERROR as TARGET_ERROR
from invattn.evaluation.likelihood import LikelihoodReport as LikelihoodReport
from invattn.evaluation.likelihood import block_radii as block_radii
from invattn.evaluation.likelihood import inverse_errors as inverse_errors
from invattn.evaluation.likelihood import measure_likelihood as measure_likelihood
from invattn.evaluation.likelihood import refusal as refusal
from invattn.evaluation.likelihood import with_estimator as with_estimator
from invattn.evaluation.neighbours import Neighbours as Neighbours
from invattn.evaluation.neighbours import nearest_images as nearest_images
from invattn.evaluation.picard_trace import PicardTrace as PicardTrace
from invattn.evaluation.picard_trace import picard_trace as picard_trace
from invattn.evaluation.precision import without_tf32 as without_tf32
from invattn.evaluation.receptive_field import ReceptiveField as ReceptiveField
from invattn.evaluation.receptive_field import receptive_fields as receptive_fields
from invattn.evaluation.sampling import Samples as Samples
from invattn.evaluation.sampling import draw_samples as draw_samples
