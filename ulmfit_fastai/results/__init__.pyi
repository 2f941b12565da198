from .averaging import average_runs as average_runs
from .evaluation import Evaluation as Evaluation
from .folder import RunFolder as RunFolder
from .intervals import wilson_interval as wilson_interval
from .result import Result as Result
from .verdict import Verdict as Verdict
from .verdict import check as check
