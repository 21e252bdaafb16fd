"""The name under which :mod:`invattn.hub` went before 0.2: programs that import it go on working."""

from invattn.hub import BlockCertificate as BlockCertificate
from invattn.hub import FlowConfig as FlowConfig
from invattn.hub import ImageFlowConfig as ImageFlowConfig
from invattn.hub import LoadedModel as LoadedModel
from invattn.hub import ModelConfig as ModelConfig
from invattn.hub import StoredConfig as StoredConfig
from invattn.hub import TokenFlowConfig as TokenFlowConfig
from invattn.hub import VectorFlowConfig as VectorFlowConfig
from invattn.hub import block_certificates as block_certificates
from invattn.hub import certificate_of as certificate_of
from invattn.hub import load_flow as load_flow
from invattn.hub import load_model as load_model
from invattn.hub import read_model as read_model
from invattn.hub import save_model as save_model
