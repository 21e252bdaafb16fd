"""Models on disk: configuration, weights and certificate, verified when they are read."""

from invattn.checkpoints.certificate import certificate_of as certificate_of
from invattn.checkpoints.config import ModelConfig as ModelConfig
from invattn.checkpoints.model_folder import LoadedModel as LoadedModel
from invattn.checkpoints.model_folder import load_model as load_model
from invattn.checkpoints.model_folder import save_model as save_model
