"""Typed results of the experiments, the paper's published figures, and files that are never half-written."""

from invattn.records.camouflage import CamouflageRecord as CamouflageRecord
from invattn.records.camouflage import CamouflageRow as CamouflageRow
from invattn.records.camouflage import MapMetrics as MapMetrics
from invattn.records.camouflage import is_camouflage as is_camouflage
from invattn.records.density import DensityMetrics as DensityMetrics
from invattn.records.density import DensityRecord as DensityRecord
from invattn.records.density import DensityResult as DensityResult
from invattn.records.density import is_density as is_density
from invattn.records.diagnosis import COLLISION_GREY_LEVELS as COLLISION_GREY_LEVELS
from invattn.records.diagnosis import COLLISION_OUTPUT as COLLISION_OUTPUT
from invattn.records.diagnosis import DiagnosedImage as DiagnosedImage
from invattn.records.diagnosis import DiagnosisRecord as DiagnosisRecord
from invattn.records.diagnosis import read_diagnosis as read_diagnosis
from invattn.records.files import atomic_write as atomic_write
from invattn.records.files import read_json as read_json
from invattn.records.files import remove_leftovers as remove_leftovers
from invattn.records.files import write_json as write_json
from invattn.records.published import published_detection as published_detection
from invattn.records.published import published_reconstruction as published_reconstruction
from invattn.records.published import published_rows as published_rows
from invattn.records.reader import SCHEMA_VERSION as SCHEMA_VERSION
from invattn.records.reconstruction import ReconstructionMetrics as ReconstructionMetrics
from invattn.records.reconstruction import ReconstructionRecord as ReconstructionRecord
from invattn.records.reconstruction import ReconstructionResult as ReconstructionResult
from invattn.records.reconstruction import read_record as read_record
