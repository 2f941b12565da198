"""The service of docs/serving.md, as it stands there, behind a real server on this machine's own address."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from some_texts import reviews, tiny

pytest.importorskip("fastapi", reason="serving: pip install -e '.[test]'")
pytest.importorskip("uvicorn", reason="serving: pip install -e '.[test]'")
httpx = pytest.importorskip("httpx", reason="serving: pip install -e '.[test]'")

ROOT = Path(__file__).parents[1]
TEXTS, LABELS = reviews(24)


@pytest.fixture(scope="module")
def model():
    return tiny(epochs=1).fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, flags=re.S)[0].replace(", int8=True", "")  # the same bits, then
    (folder / "serve.py").write_text(code, encoding="utf-8")
    model.save(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MODEL": str(folder / "model"), "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen([sys.executable, "-m", "uvicorn", "serve:app", "--port", str(port)], cwd=folder,
                              env=environment, stderr=subprocess.PIPE)
    try:
        wait_for(server, port)
        yield f"http://127.0.0.1:{port}/predict"
    finally:
        server.terminate()
        server.communicate(timeout=30)


def wait_for(server, port, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, server.stderr.read().decode()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"no answer on port {port}")


def test_requests_at_once_get_the_numbers_of_one(model, address):
    def ask(i):
        answer = httpx.post(address, json={"texts": TEXTS[i % 20:i % 20 + 3]}, timeout=60)
        return [list(row.values()) for row in answer.raise_for_status().json()]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(60)))
    alone = [model.predict_proba(TEXTS[i:i + 3]) for i in range(20)]
    assert sum(not np.array_equal(found[i], alone[i % 20]) for i in range(60)) == 0


@pytest.mark.parametrize(("texts", "status", "words"), [
    (["fine", "  "], 422, "row 1"), ([], 422, "at least 1"), ("fine", 422, "list"), (["x" * 100_001], 413, "100,000")])
def test_what_the_service_refuses_is_said(address, texts, status, words):
    answer = httpx.post(address, json={"texts": texts}, timeout=60)
    assert answer.status_code == status and words in answer.text
