"""Real images for the experiments: embedded photographs, CIFAR-10, SVHN, CelebA and any folder of images."""

from invattn.data.density_images import DENSITY_IMAGES as DENSITY_IMAGES
from invattn.data.density_images import grey_levels as grey_levels
from invattn.data.density_images import load_density_images as load_density_images
from invattn.data.dequantise import dequantise as dequantise
from invattn.data.dequantise import to_pixels as to_pixels
from invattn.data.flips import flip_half as flip_half
from invattn.data.gather import ImageSize as ImageSize
from invattn.data.image_data import ImageData as ImageData
from invattn.data.sets import SETS as SETS
from invattn.data.sets import load_reconstruction_data as load_reconstruction_data
