from .ids import TokenIds as TokenIds
from .ids import vocab_hash as vocab_hash
from .languages import make_tokenizer as make_tokenizer
from .pieces import train_pieces as train_pieces
from .store import TokenStore as TokenStore
from .stream import tokenize as tokenize
