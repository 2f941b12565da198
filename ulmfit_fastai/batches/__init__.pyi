from .classifier import ClassifierLoader as ClassifierLoader
from .dataloaders import classifier_dataloaders as classifier_dataloaders
from .dataloaders import inference_loader as inference_loader
from .dataloaders import lm_dataloaders as lm_dataloaders
from .lm import LMLoader as LMLoader
from .targets import Target as Target
from .targets import Targets as Targets
