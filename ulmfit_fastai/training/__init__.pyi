from .loop import PhaseFit as PhaseFit
from .pretraining import pretrain as pretrain
from .runs import plan_run as plan_run
from .runs import run as run
