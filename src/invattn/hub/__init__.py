"""Models on disk: configuration, weights and certificate, verified when they are read."""

from invattn.hub.certificate import BlockCertificate as BlockCertificate
from invattn.hub.certificate import block_certificates as block_certificates
from invattn.hub.certificate import certificate_of as certificate_of
from invattn.hub.config import ModelConfig as ModelConfig
from invattn.hub.config import StoredConfig as StoredConfig
from invattn.hub.flow_config import DEQUANTISATIONS as DEQUANTISATIONS
from invattn.hub.flow_config import FlowConfig as FlowConfig
from invattn.hub.flow_config import ImageFlowConfig as ImageFlowConfig
from invattn.hub.flow_config import TokenFlowConfig as TokenFlowConfig
from invattn.hub.flow_config import VectorFlowConfig as VectorFlowConfig
from invattn.hub.model_folder import LoadedModel as LoadedModel
from invattn.hub.model_folder import load_flow as load_flow
from invattn.hub.model_folder import load_model as load_model
from invattn.hub.model_folder import read_model as read_model
from invattn.hub.model_folder import refuse as refuse
from invattn.hub.model_folder import save_model as save_model
