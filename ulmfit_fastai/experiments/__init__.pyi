from .baselines import tfidf_baseline as tfidf_baseline
from .epoch_curves import figure4 as figure4
from .label_curves import lowshot as lowshot
from .main_results import reproduce_all as reproduce_all
from .reproduction import demo as demo
from .reproduction import reproduce as reproduce
from .reproduction import reproduce_imdb as reproduce_imdb
from .tables import ablate as ablate
