from .estimator import ULMFiT as ULMFiT
from .estimator import Unfinished as Unfinished
from .learner import fastai_learner as fastai_learner
