"""Networks of tasks beyond density: camouflaged object detection."""

from invattn.models.camouflage import BACKBONES as BACKBONES
from invattn.models.camouflage import CamouflageArchitecture as CamouflageArchitecture
from invattn.models.camouflage import CamouflageNetwork as CamouflageNetwork
from invattn.models.light_head import LightHead as LightHead
from invattn.models.resnet import load_backbone_weights as load_backbone_weights
