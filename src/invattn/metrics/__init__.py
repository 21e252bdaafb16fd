"""Metrics of images: thin wrappers over torchmetrics."""

from invattn.metrics.frechet import frechet_distance as frechet_distance
from invattn.metrics.frechet import load_features as load_features
from invattn.metrics.pixels import CleanPixels as CleanPixels
from invattn.metrics.pixels import clean_pixels as clean_pixels
from invattn.metrics.reconstruction import V_SCORE_THRESHOLD as V_SCORE_THRESHOLD
from invattn.metrics.reconstruction import mse_per_image as mse_per_image
from invattn.metrics.reconstruction import ssim_per_image as ssim_per_image
from invattn.metrics.reconstruction import v_score as v_score
