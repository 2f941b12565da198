"""Tokenising on all cores: worker processes of our own, the same on Linux, macOS and Windows.

A worker is `python -c "... serve()"` with pickles on its standard input and output. Unlike `multiprocessing` with the
spawn method, which Windows and macOS use, it never imports the user's `__main__`: a script without
`if __name__ == "__main__":`, a notebook or a program read from standard input is not run a second time. Unlike fork
it does not copy a process that holds torch's threads: a worker holds spaCy and its own dictionary, about 150 MB.

10,000 IMDb reviews by two workers, median of 5: 420,000 tokens a CPU second here, 372,000 through joblib's `Parallel`,
380,000 through the executor behind it (`joblib.externals.loky`, no public address).
"""

from __future__ import annotations

import logging
import os
import pickle
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .languages import make_tokenizer

log = logging.getLogger(__name__)

_START = "import sys; sys.path[:] = {path!r}; from ulmfit_fastai.tokens.workers import serve; serve()"


class Encoded(NamedTuple):
    """A batch of texts as one tokenizer's own word numbers."""

    tokens: np.ndarray  # uint32, the texts one after another
    counts: np.ndarray  # int64, tokens per text
    source: tuple[int, int]  # (worker, generation): numbers of different sources mean different words
    new_words: list[str]  # words of this source not sent before, in the order of their numbers


class Sender:
    """A tokenizer that says with each batch which words are new."""

    def __init__(self, number: int, lang: str) -> None:
        self.number, self.tokenizer, self.sent = number, make_tokenizer(lang), (0, 0)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Tokenise a batch, and hand its new words on with it."""
        tokens, counts = self.tokenizer.encode(texts)
        generation, sent = self.sent
        if generation != self.tokenizer.generation:
            generation, sent = self.tokenizer.generation, 0
        words = self.tokenizer.words
        self.sent = generation, len(words)
        return Encoded(tokens, counts, (self.number, generation), words[sent:])


class Worker:
    """One worker process; `encode` sends a batch and waits for its tokens."""

    def __init__(self, number: int, lang: str) -> None:
        command = [sys.executable, "-c", _START.format(path=import_path())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.stdin: BinaryIO = self.process.stdin  # type: ignore[assignment]
        self.stdout: BinaryIO = self.process.stdout  # type: ignore[assignment]
        _send(self.stdin, (number, lang))

    def ready(self) -> None:
        """Wait until the worker has imported spaCy."""
        self._receive()

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Send a batch and wait for its tokens; OSError when the process has ended."""
        _send(self.stdin, list(texts))
        return self._receive()

    def _receive(self) -> Any:
        try:
            status, value = _receive(self.stdout)
        except EOFError:
            raise OSError(
                f"a tokenising process ended with code {self.process.wait()} (out of memory?). "
                "Try fewer with n_workers, or n_workers=1 to work in this process."
            ) from None
        if status == "error":
            raise value
        return value

    def close(self) -> None:
        """End the process: closing its input tells it to stop."""
        for stream in (self.stdin, self.stdout):
            try:
                stream.close()
            except OSError:
                pass  # a broken pipe: the worker is gone already
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_workers(count: int, lang: str) -> list[Worker]:
    """Start `count` workers, or none, with a warning, where processes cannot be started."""
    if not sys.executable or getattr(sys, "frozen", False):
        log.warning("no Python to start processes with: tokenising in this process only")
        return []
    workers: list[Worker] = []
    try:
        for number in range(count):
            workers.append(Worker(number, lang))
        for worker in workers:
            worker.ready()
    except OSError as error:
        for worker in workers:
            worker.close()
        log.warning("tokenising in this process only, other processes could not be started: %s", error)
        return []
    return workers


def in_workers(workers: list[Worker], batches: Iterable[list[str]]) -> Iterator[Encoded]:
    """Deal batches out in turn (so that results do not depend on timing) and yield their tokens in order."""
    threads = [ThreadPoolExecutor(1) for _ in workers]
    waiting: deque[Future[Encoded]] = deque()
    try:
        for number, batch in enumerate(batches):
            turn = number % len(workers)
            if len(waiting) >= 2 * len(workers):
                yield waiting.popleft().result()
            waiting.append(threads[turn].submit(workers[turn].encode, batch))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for worker in workers:
            if waiting:  # stopped early: don't wait for what nobody will read
                worker.process.kill()
        for thread in threads:
            thread.shutdown(cancel_futures=True)
        for worker in workers:
            worker.close()


def import_path() -> list[str]:
    """Where a worker finds what this process found, this package included."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [package, *(os.path.abspath(entry) for entry in sys.path)]


def _send(stream: BinaryIO, value: Any) -> None:
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(struct.pack("<Q", len(data)))
    stream.write(data)
    stream.flush()


def _receive(stream: BinaryIO) -> Any:
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError
    size = struct.unpack("<Q", header)[0]
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)


def serve() -> None:
    """The worker's side: tokenise every batch that comes in until the input ends."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it then closes our input
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    requests = sys.stdin.buffer
    # spaCy's thinc imports torch where it finds it: 180 MB and two seconds a process, for nothing here.
    for unused in ("torch", "tensorflow", "cupy", "mxnet"):
        sys.modules[unused] = None  # type: ignore[assignment]
    try:
        number, lang = _receive(requests)
        sender = Sender(number, lang)
        _send(answers, ("ready", None))
        while True:
            texts = _receive(requests)
            try:
                answer: tuple[str, Any] = ("tokens", sender.encode(texts))
            except Exception as error:  # handed to the parent, which raises it
                answer = ("error", error)
            _send(answers, answer)
    except (EOFError, BrokenPipeError):
        pass  # the parent is done, or gone


