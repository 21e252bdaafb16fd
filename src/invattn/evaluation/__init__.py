"""How well a model inverts a data set, and what its inverse does step by step."""

from invattn.evaluation.attention_maps import query_maps as query_maps
from invattn.evaluation.attention_maps import query_points as query_points
from invattn.evaluation.inversion import InversionReport as InversionReport
from invattn.evaluation.inversion import invert_images as invert_images
from invattn.evaluation.picard_trace import PicardTrace as PicardTrace
from invattn.evaluation.picard_trace import picard_trace as picard_trace
