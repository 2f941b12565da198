from .explanation import Explanation as Explanation
from .integrated_gradients import explain as explain
from .outputs import predict_rows as predict_rows
from .text_model import TextModel as TextModel
