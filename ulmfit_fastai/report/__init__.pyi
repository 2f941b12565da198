from .page import figure_html as figure_html
from .report import report_html as report_html
from .report import write_report as write_report
from .several_runs import write_comparison as write_comparison
