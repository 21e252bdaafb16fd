"""Models on disk: configuration, weights and certificate, verified when they are read."""

from invattn.checkpoints.certificate import BlockCertificate as BlockCertificate
from invattn.checkpoints.certificate import block_certificates as block_certificates
from invattn.checkpoints.certificate import certificate_of as certificate_of
from invattn.checkpoints.config import ModelConfig as ModelConfig
from invattn.checkpoints.flow_config import FlowConfig as FlowConfig
from invattn.checkpoints.image_flow_config import ImageFlowConfig as ImageFlowConfig
from invattn.checkpoints.model_folder import LoadedModel as LoadedModel
from invattn.checkpoints.model_folder import load_flow as load_flow
from invattn.checkpoints.model_folder import load_model as load_model
from invattn.checkpoints.model_folder import load_network as load_network
from invattn.checkpoints.model_folder import read_model as read_model
from invattn.checkpoints.model_folder import refuse as refuse
from invattn.checkpoints.model_folder import save_model as save_model
from invattn.checkpoints.network_config import NetworkConfig as NetworkConfig
from invattn.checkpoints.stored_config import StoredConfig as StoredConfig
from invattn.checkpoints.token_flow_config import TokenFlowConfig as TokenFlowConfig
from invattn.checkpoints.vector_flow_config import VectorFlowConfig as VectorFlowConfig
