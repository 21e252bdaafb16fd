"""Training that can be stopped at any step and continued to the same weights."""

from invattn.training.atomic_checkpoint_io import AtomicCheckpointIO as AtomicCheckpointIO
from invattn.training.companions import WorkerLost as WorkerLost
from invattn.training.companions import on_processes as on_processes
from invattn.training.event_log import EventLog as EventLog
from invattn.training.fit import FitResult as FitResult
from invattn.training.fit import fit as fit
from invattn.training.interruption import Interrupted as Interrupted
from invattn.training.interruption import Interruption as Interruption
from invattn.training.interruption import watch_interrupts as watch_interrupts
from invattn.training.likelihood import MaximumLikelihood as MaximumLikelihood
from invattn.training.machines import Machines as Machines
from invattn.training.machines import Worker as Worker
from invattn.training.optimisation import Optimisation as Optimisation
from invattn.training.progress import Progress as Progress
from invattn.training.progress import SilentProgress as SilentProgress
from invattn.training.regression import FixedTargetRegression as FixedTargetRegression
from invattn.training.resumable_loader import Batch as Batch
from invattn.training.resumable_loader import ResumableLoader as ResumableLoader
from invattn.training.resumable_module import NonFiniteLoss as NonFiniteLoss
from invattn.training.resumable_module import ResumableModule as ResumableModule
from invattn.training.resume_checkpoint import ResumeCheckpoint as ResumeCheckpoint
from invattn.training.seeds import derive_seed as derive_seed
from invattn.training.unit import NATS as NATS
from invattn.training.unit import Unit as Unit
from invattn.training.unit import bits as bits
