from .app import COMMANDS as COMMANDS
from .app import build_parser as build_parser
from .app import main as main
