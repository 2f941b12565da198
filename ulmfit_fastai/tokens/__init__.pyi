from .ids import TokenIds as TokenIds
from .ids import Vocabulary as Vocabulary
from .languages import make_tokenizer as make_tokenizer
from .pieces import train_pieces as train_pieces
from .store import TokenStore as TokenStore
from .stream import tokenize as tokenize
