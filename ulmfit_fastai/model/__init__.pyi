from .layers import build_classifier as build_classifier
from .layers import build_language_model as build_language_model
from .learners import classifier_learner as classifier_learner
from .learners import lm_learner as lm_learner
from .weights import Classifier as Classifier
from .weights import LMWeights as LMWeights
