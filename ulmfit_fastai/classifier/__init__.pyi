from .estimator import ULMFiT as ULMFiT
from .fitted import Unfinished as Unfinished
from .learner import fastai_learner as fastai_learner
