"""The commands that run, check and show: demo, imdb, check, average, doctor, report, recipe, pretrain."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import UlmfitError
from .options import DIRECTIONS, STOPPED, given, overrides, say
from .records import refuse_plan_as_json, show, tell

if TYPE_CHECKING:
    from ..recipe.documentation import Field


def demo(args: argparse.Namespace) -> int:
    """The whole method on synthetic reviews: a few minutes on two cores, offline.

    Pretraining, language-model fine-tuning and the classifier, forward and backward, on reviews that the package makes
    itself. They are made so that word order carries the label. It shows that everything works; its error says nothing
    about real reviews.

    examples:
      ulmfit-fastai demo
      ulmfit-fastai demo --out /tmp/demo
    """
    from ..experiments.reproduction import demo as run_demo

    return show(args, run_demo(out=args.out, device=args.device), args.out)


def imdb(args: argparse.Namespace) -> int:
    """The paper's main result on the real IMDb reviews, resumable.

    Fetches the data and the pretrained weights (or takes what --data and fastai's cache hold), fine-tunes the language
    model and the classifier in each direction, averages them, and compares the error on the 25,000 test reviews with
    the paper's. Interrupted, by you or by the time budget, the same command goes on where it stopped.

    presets:
      fastai       what works best on fastai v2, forward and backward: for a GPU (default)
      paper        section 4.1 of the paper to the letter, pretraining included: for a GPU and patience
      paper-wt103  the same from fastai's pretrained weights
      scripts      the settings of the authors' released code: for a GPU and patience
      paper-small  the paper's method with the small pretrained model of this package: for small data on a CPU
      quick        the same small model, one-cycle: an evening on two CPU cores
      few-labels   the same from 500 labels: minutes on two CPU cores
      quick-adversarial  quick with adversarial training: beyond the paper, twice the classifier's work
      night        a wider model and five epochs, stage 1 included (--corpus): a night or two on two CPU cores
      night-adversarial  night with adversarial training: beyond the paper
      tiny         a model of no use, to see the machinery turn
    --dry-run measures a few batches and says how long a preset takes on this machine.

    examples:
      ulmfit-fastai imdb --preset quick --data PATH/imdb.tgz --out runs/imdb-quick
      ulmfit-fastai imdb --dry-run
      ulmfit-fastai imdb --direction forward --time-budget 2h
      ulmfit-fastai imdb --preset paper --corpus wikitext-103 --set classifier.bs=32
      ulmfit-fastai imdb --preset quick --lm-from runs/imdb --set classifier.optimizer.wd=0.1 --out runs/more-decay
    """
    settings = overrides(args)  # refused before the heavy imports
    refuse_plan_as_json(args)
    from ..experiments.reproduction import reproduce_imdb

    result = reproduce_imdb(args.preset, data=args.data, corpus=args.corpus, out=args.out,
                            lm_from=args.lm_from, device=args.device, resume=not args.no_resume,
                            time_budget=args.time_budget, dry_run=args.dry_run, parallel=args.parallel, **settings)
    return show(args, result, args.out)


def check(args: argparse.Namespace) -> int:
    """Compare runs with the paper; exit code 1 if one falls short.

    For each run folder: the error with its 95 % interval, the paper's, and the verdict, which is `reproduced`,
    `within tolerance`, `short`, or `no claim` where the run is smaller than the paper's. Runs of one experiment that
    differ in their seed only are judged together, by their mean. Only `short` gives exit code 1.

    examples:
      ulmfit-fastai check runs/imdb
      ulmfit-fastai check runs/trec6-seed1 runs/trec6-seed2 runs/trec6-seed3
    """
    from ..results.result import Result
    from ..results.verdict import check as compare
    from ..results.verdict import experiments_of

    folders = {Path(run).resolve(): run for run in reversed(args.runs)}  # one named twice is still one run
    experiments = experiments_of([Result.load(run) for run in reversed(folders.values())])
    verdicts = [compare(*results) for results in experiments]
    said = [([str(result.folder) for result in results], verdict) for results, verdict in zip(experiments, verdicts)]
    tell(args, "\n".join(f"{', '.join(runs)}\n  {verdict}" for runs, verdict in said),
         [{"runs": runs, "verdict": verdict} for runs, verdict in said])
    return max(verdict.exit_code for verdict in verdicts)


def average(args: argparse.Namespace) -> int:
    """Average runs that were made apart: a forward and a backward one, as the paper does, or several seeds.

    `imdb` and `reproduce` with both directions do this by themselves; this is for directions trained on two machines or
    in two sittings, and for more models than the paper's two. All must be finished, of the same recipe and texts, and
    differ in direction or seed. --out then holds the averaged predictions and a report, and `check` takes it.

    examples:
      ulmfit-fastai average runs/imdb-forward runs/imdb-backward --out runs/imdb-both
      ulmfit-fastai average runs/imdb-quick runs/imdb-quick-seed-1 --out runs/imdb-quick-two-seeds
    """
    from ..report.report import write_report
    from ..results.averaging import average_runs

    result = average_runs(args.runs, args.out)
    write_report(args.out)
    return show(args, result, args.out)


def doctor(args: argparse.Namespace) -> int:
    """Say what is installed, which device will be used, and with --for imdb whether data and weights can be had.

    Versions beside the ranges the package is meant for; device and precision; memory and disk; what is in the caches.
    With --for imdb also which data sets and weights are there, which hosts answer; and for whatever is missing, where
    to get it and where to put it. Changes nothing. Exit code 1 if something stands in the way of the demo and of your
    own texts; with --for imdb, of the paper's experiment too.

    examples:
      ulmfit-fastai doctor
      ulmfit-fastai doctor --for imdb
      ulmfit-fastai doctor --offline --json
    """
    from .doctor import diagnose

    diagnosis = diagnose(args.purpose, network=not args.offline)
    ready = diagnosis.ready_for(args.purpose)
    tell(args, diagnosis.text, {"ready": ready, "for": args.purpose, "verdict": diagnosis.verdict,
                                "sections": diagnosis.sections})
    return 0 if ready else 1


def report(args: argparse.Namespace) -> int:
    """Write the HTML report of a run again, or one page that compares several.

    One page that opens offline: the result, beside the paper where that has one, rates, losses, where it errs, time and
    memory. A finished run has one already; this makes it anew, also for a run that was stopped.

    With --texts it shows the most confident mistakes with the words that led to them: a page to keep to yourself. A
    report of your own texts, as `train` writes it, has them; made anew it is without, to be passed on.

    Several runs: their errors with intervals, their losses, where their recipes differ, and their seconds, on the page
    --out.

    examples:
      ulmfit-fastai report runs/imdb
      ulmfit-fastai report runs/imdb --texts
      ulmfit-fastai report model-a model-b --out comparison.html
    """
    from ..report.report import write_report

    if len(args.runs) > 1:
        from ..report.several_runs import write_comparison

        if args.texts is not None:
            raise UlmfitError("--texts shows those of one run: give one, or leave it out", field="texts")
        page = write_comparison(args.runs, args.out or "comparison.html").resolve()
        tell(args, f"comparison: {page}", {"comparison": str(page)})
        return 0
    if args.out is not None:
        raise UlmfitError("--out is the page of several runs; one run's is its report.html", field="out")
    run, dataset = args.runs[0], None
    if args.texts is not None:
        from ..results.result import Result
        from ..texts.imdb import load_imdb
        from ..texts.sources import load_task

        task, path = Result.load(run).task, args.texts or None  # whether they are the run's is checked below
        if task == "custom":
            raise UlmfitError("--texts shows texts of the paper's data sets; the report of your own shows yours when "
                              "`train` writes it", field="texts",
                              advice=f"remove {run}/report.html and run the same `train` command again, which trains "
                                     "nothing anew")
        dataset = load_imdb(path, verify=False) if task == "imdb" else load_task(task, path)
    page = write_report(run, dataset=dataset, show_texts=True if dataset else None).resolve()
    tell(args, f"report: {page}", {"report": str(page)})
    return 0


def recipe(args: argparse.Namespace) -> int:
    """Print a recipe, or the difference between two.

    NAME is a preset (paper, scripts, fastai, quick, ...), a row of the paper's Tables 4 to 7 (table7.chain_thaw), the
    full method those rows vary (ulmfit), a run folder, or a JSON file of a recipe. All of these can be given as
    --preset.

    examples:
      ulmfit-fastai recipe fastai
      ulmfit-fastai recipe --fields
      ulmfit-fastai recipe quick --json > my.json
      ulmfit-fastai recipe diff paper fastai
      ulmfit-fastai recipe diff ulmfit table7.chain_thaw --task trec6
      ulmfit-fastai recipe diff fastai runs/imdb
    """
    from ..recipe.find import find_recipe

    if args.fields:
        listed = fields(args.names, args.task)
        tell(args, "\n".join(map(str, listed)), listed)
        return 0
    if len(args.names) == 3 and args.names[0] == "diff":
        first, second = (find_recipe(name, args.task) for name in args.names[1:])
        rows = [(field, short(a), short(b)) for field, a, b in first.diff(second)]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        lines = [f"{field:<{widths[0]}}  {a:<{widths[1]}}  ->  {b}" for field, a, b in rows]
        tell(args, "\n".join(lines or ["no difference"]),
             [{"field": field, "first": a, "second": b} for field, a, b in first.diff(second)])
        return 0
    if len(args.names) != 1 or args.names[0] == "diff":
        raise UlmfitError("expected `recipe NAME` or `recipe diff NAME NAME`, found: recipe " + " ".join(args.names))
    found = find_recipe(args.names[0], args.task)
    say(found.to_json() if args.json else found)
    return 0


def short(value: Any, most: int = 50) -> str:
    """The value as text, cut where it would fill the screen."""
    text = str(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def fields(names: list[str], task: str) -> list[Field]:
    """Every field that --set takes: of all recipes, of one, or of `pretrain`."""
    from ..recipe.documentation import documented, documented_arguments
    from ..recipe.find import find_recipe

    if names == ["pretrain"]:
        from ..training.stage_one import Reading, pretraining

        return [*documented_arguments(pretraining), *documented(Reading)]
    return [*(documented(given=find_recipe(names[0], task)) if names else documented())]


def pretrain(args: argparse.Namespace) -> int:
    """Stage 1: train a language model on a corpus of your own, resumable.

    CORPUS is a file, a folder or a pattern of JSON lines (.jsonl), Parquet, CSV, TSV, text (.txt) or WikiText
    (.tokens), also compressed (.gz .bz2 .xz .zst), or the name wikitext-103 or wikitext-2, which come through fastai's
    cache.
    It is streamed, so it may be larger than memory. Another run starts from the result with `--set weights=FOLDER`.
    --set changes the settings of pretraining: epochs, lr, bs, bptt, limit_words and so on.

    examples:
      ulmfit-fastai pretrain articles.jsonl.xz --out runs/wiki
      ulmfit-fastai pretrain wikitext-103 --size full --direction both --time-budget 8h --out runs/wt103
      ulmfit-fastai pretrain artikel.txt.gz --lang de --tokenizer sentencepiece --out runs/de
      ulmfit-fastai pretrain patents.jsonl --weights wiki-small --set lr=2e-3 --out runs/patents
    """
    settings = {"size": args.size, "directions": DIRECTIONS["forward"], "lang": args.lang, "tokenizer": args.tokenizer,
                **{name: value for name in ("text", "encoding") if (value := getattr(args, name)) is not None},
                **given(args)}
    from ..training.pretraining import pretrain as run_pretraining
    from ..training.stage_one import settings as checked

    checked(settings)  # a name that isn't a setting's must not reach another argument

    folder = run_pretraining(args.corpus, out=args.out, valid=args.valid, evaluate=args.evaluate,
                             time_budget=args.time_budget, device=args.device, resume=not args.no_resume, **settings)
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    lines = [line for direction, texts in run.get("samples", {}).items()
             for line in (f"what the {direction} model writes:", *(f"  {text}" for text in texts))]
    tell(args, "\n".join([*lines, f"language model, {run['status']}: {folder.resolve()}"]),
         {"status": run["status"], "folder": str(folder.resolve()),
          "metrics": {stage["direction"]: stage["metrics"] for stage in run.get("stages", ()) if "metrics" in stage}
          | run.get("metrics", {}),
          "samples": run.get("samples", {})})
    return STOPPED if run["status"] == "stopped" else 0
