"""What needs a process of its own: peak memory of each side, the time of an import, growth with the number of texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ulmfit_fastai._files import write_text_atomic

from .measure import Record, alternate, forget_peak, memory_now, peak_memory, row

ROOT = Path(__file__).parents[1]


def ask_child(setup: Any, job: str, side: str, **more: Any) -> Record:
    """Run a job in a fresh process of this benchmark and return what it says."""
    question = json.dumps({"job": job, "side": side, **more})
    command = [sys.executable, "-m", "benchmarks", "--child", question, "--work", str(setup.work), "--device",
               str(setup.device), *(["--data", str(setup.data)] if setup.data else []),
               *(["--quick"] if setup.sizes.token_docs <= 1000 else [])]
    return _said(command, f"{job}, {side}")


def _said(command: list[str], what: str) -> Record:
    """The last line that a process prints, which is JSON."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{what}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def tokenise_child(setup: Any, side: str, n: int) -> Record:
    """Tokenise `n` texts in a process that imports nothing else."""
    source = setup.work / f"texts-{n}.jsonl"
    write_text_atomic(source, "".join(json.dumps(text) + "\n" for text in setup.some_texts(n)))
    found = _said([sys.executable, "-m", "benchmarks.token_child", side, str(source), str(setup.work / "child")],
                  f"tokens, {side}")
    source.unlink()
    if found["documents"] != n:
        raise RuntimeError(f"tokens, {side}: expected {n} documents, found {found['documents']}")
    return found


def answer(setup: Any, question: Record) -> Record:
    """The child's side: do the job once and say seconds, the peak and what was there before."""
    job = JOBS[question["job"]](setup, **{k: v for k, v in question.items() if k != "job"})
    cuda = setup.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = memory_now()
    forget_peak()
    started = time.perf_counter()
    job()
    spent = time.perf_counter() - started
    return {"seconds": spent, "peak_mb": peak_memory(), "before_mb": before,
            **({"cuda_mb": torch.cuda.max_memory_allocated() / 2**20} if cuda else {})}


# -- the jobs: each prepares what is not measured and returns what is ------------------------------------------------
def _lm_step(setup: Any, *, side: str, size: int) -> Callable[[], Any]:
    from . import lm
    from .fitting import fit
    from .material import our_lm, stock_lm

    _, model, words = setup.sizes.models[size]
    vocab, batches = lm.step_batches(setup, words, count=1)
    _forget_texts(setup)

    def step() -> None:
        if side == "stock":
            learn = stock_lm(vocab, model, lm.as_stock(batches), setup.device)
        else:
            learn = our_lm(vocab, model, batches, setup.device, setup.sizes.bptt)
        fit(learn, setup.device)

    return step


def _classifier_step(setup: Any, *, side: str) -> Callable[[], Any]:
    from . import classifier
    from .fitting import fit
    from .material import our_classifier, stock_classifier

    sizes = setup.sizes
    ids = classifier.documents(setup, 4 * sizes.clas_bs)
    longest = np.argsort(-ids.lengths)[: sizes.clas_bs]
    pair = classifier.both_batches([ids.doc(i) for i in longest.tolist()], sizes.bptt, setup.device)
    _forget_texts(setup)

    def step() -> None:
        given = ids.vocab, sizes.models[-1][1], [pair[side != "stock"]], setup.device, sizes.bptt
        dtype = setup.dtype(side.removeprefix("ours "))
        fit(stock_classifier(*given) if side == "stock" else our_classifier(*given, dtype), setup.device)

    return step


def _evaluation(setup: Any, *, side: str, n: int) -> Callable[[], Any]:
    from . import classifier
    from .material import our_classifier, stock_classifier

    sizes, device = setup.sizes, setup.device
    ids, rows = classifier.documents(setup, n, 0), np.arange(n)
    _forget_texts(setup)

    def predict() -> None:
        model = sizes.models[0][1]
        if side == "stock":
            learn = stock_classifier(ids.vocab, model, [], device, sizes.bptt)
            classifier.stock_predictions(learn, classifier.stock_loader(ids, rows, bptt=sizes.bptt, device=device))
        else:
            learn = our_classifier(ids.vocab, model, [], device, sizes.bptt)
            classifier.our_predictions(learn.model, ids, rows, bptt=sizes.bptt, device=device)

    return predict


def _forget_texts(setup: Any) -> None:
    for name in ("texts", "dataset"):
        setup.__dict__.pop(name, None)


JOBS: dict[str, Callable[..., Callable[[], Any]]] = {
    "LM step": _lm_step, "classifier step": _classifier_step, "evaluation": _evaluation}


# -- the stages -----------------------------------------------------------------------------------------------------
def memory(setup: Any) -> list[Record]:
    """Peak memory of each side, in a fresh process each."""
    sizes = setup.sizes
    n, few = sizes.eval_docs[0], sizes.eval_docs[0] // 4
    jobs: list[tuple[str, str, float | None, Record]] = [
        ("tokenise and numericalise", "tokens", 4.0, {"n": sizes.token_docs}),
        *((f"LM step, {model[0]}", "LM step", 2.0, {"size": number}) for number, model in enumerate(sizes.models)),
        ("classifier step", "classifier step", None, {}),
        *((f"evaluation of {some:,} reviews, {sizes.models[0][0]}", "evaluation", None, {"n": some})
          for some in (few, n)),
    ]
    rows = []
    for name, job, wanted, more in jobs[: sizes.memory_jobs]:
        if job == "tokens":
            found = {side: tokenise_child(setup, side, **more) for side in ("stock", "ours", "ours, fastai loaded")}
        else:
            sides = ("stock", "ours", *(("ours bf16",) if job == "classifier step" and "bf16" in setup.formats else ()))
            found = {side: ask_child(setup, job, side, **more) for side in sides}
        field = "cuda_mb" if setup.device.type == "cuda" and job != "tokens" else "peak_mb"
        made = row(f"memory, {name}", {side: [one[field]] for side, one in found.items()}, unit="MB",
                   target={"ours": wanted} if wanted else None, note=
                   "whole processes, workers included" if job == "tokens" else "whole process, imports included")
        made["before"] = {side: one["before_mb"] for side, one in found.items()}
        above = {side: max(one["peak_mb"] - one["before_mb"], 0.0) for side, one in found.items()}
        made["above_imports"] = above
        made["checks"] = {side: f"above what was there before: {above['stock']:,.0f} and {above[side]:,.0f} MB"
                          for side in above if side != "stock"}
        rows.append(made)
    return rows


IMPORTS = {
    "stock": "from fastai.text.all import *",
    "ours": "import ulmfit_fastai",
    "ours, in use": "from ulmfit_fastai import reproduce_imdb",
}


def imports(setup: Any) -> list[Record]:
    """Seconds from starting Python to having imported, less an empty Python's."""
    def start(code: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=os.environ)

    sides = {name: start(code) for name, code in IMPORTS.items()} | {"empty": start("pass")}
    times = alternate(sides, repeats=setup.sizes.imports, device=torch.device("cpu"))
    empty = median(times.pop("empty"))
    times = {name: [max(value - empty, 1e-4) for value in values] for name, values in times.items()}
    return [row("import", times, note=f"stock: `{IMPORTS['stock']}`; ours: `{IMPORTS['ours']}`, which imports the rest "
                                      f"when it is used: then `{IMPORTS['ours, in use']}`")]


def scale(setup: Any) -> list[Record]:
    """How time and memory grow with the number of texts (tokenising) and with their length (predicting)."""
    rows = []
    for n in setup.sizes.scale_docs:
        if n > len(setup.texts):
            continue
        sides = {"stock": "stock", "ours": "ours, fastai loaded"}  # all imports before the clock starts
        if n > setup.sizes.scale_stock:
            del sides["stock"]
        rows.append({"what": "documents", "n": n, **{name: tokenise_child(setup, side, n)
                                                     for name, side in sides.items()}})
    return rows + lengths(setup)


def lengths(setup: Any) -> list[Record]:
    """Seconds and memory of predicting some texts of equal length, ascending."""
    from . import classifier

    sizes, device = setup.sizes, setup.device
    ids = classifier.documents(setup, min(sizes.lm_docs, 200))
    flat = np.asarray(ids.ids)
    stock, ours = classifier.prediction_models(setup, ids.vocab)
    rows = []
    for n in sizes.scale_tokens:
        docs = [np.resize(np.roll(flat, -7 * k), n) for k in range(sizes.scale_texts)]
        for doc in docs:
            doc[doc == 1] = 0
        theirs, batch = classifier.both_batches(docs, sizes.bptt, device)
        record: Record = {"what": "tokens", "n": n, "texts": len(docs)}
        models = {"stock": (stock.model.eval(), theirs[0])} | {name: (m, batch[0]) for name, m in ours.items()}
        for name, (model, x) in models.items():
            def predict(model: Any = model, x: Any = x) -> None:
                with torch.inference_mode():
                    model.reset()
                    model(x)

            before = memory_now()
            forget_peak()
            times = alternate({name: predict}, repeats=min(3, sizes.repeats), device=device)[name]
            record[name] = {"seconds": median(times), "peak_mb": peak_memory(), "before_mb": before}
        rows.append(record)
    return rows
