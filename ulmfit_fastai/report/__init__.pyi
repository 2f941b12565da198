from .page import document as document
from .page import figure_html as figure_html
from .report import write_report as write_report
