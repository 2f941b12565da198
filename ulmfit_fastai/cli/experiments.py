"""The commands of the paper's experiments: every data set, Tables 4 to 7, Figures 3 and 4."""

from __future__ import annotations

import argparse
from typing import Any

from .._errors import UlmfitError
from ..paper import TASKS
from ..recipe.ablations import LOW_SHOT, ROWS, TRAINING
from .options import (
    CORPUS,
    DEVICE,
    DIRECTIONS,
    DRY_RUN,
    JSON,
    LM_FROM,
    NO_RESUME,
    PARALLEL,
    PRESET_HELP,
    SEED,
    SET,
    STOPPED,
    TIME_BUDGET,
    WEIGHTS,
    Command,
    option,
    overrides,
)
from .records import refuse_plan_as_json, show, tell

TASK = option("--task", choices=tuple(TASKS), default="imdb", help="data set (default: %(default)s)")
DATA = option("--data", metavar="PATH",
              help="the data set: a folder or a file (default: fastai's cache, or a download)")
NO_VERIFY = option("--no-verify", action="store_true",
                   help="take the data set as it is, be it a part of the published one; the result says so")
TRAIN_PART = option("--train-part", metavar="NAME", help="the part to train on, where a file has others than `train`")
BASE = option("--preset", default="paper-wt103", metavar="NAME",
              help="gives the sizes: model, vocabulary, batches, epochs; the method is the paper's. A name, a JSON "
                   "file that `recipe NAME --json` wrote, or a run folder (default: %(default)s)")
SEEDS = option("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N-1 (default: %(default)s)")
OUT = option("--out", metavar="FOLDER", help="the runs and the results; what it holds already is not run again "
                                             "(default: runs/ablations/TASK)")


def common(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that all experiments take."""
    return {"base": args.preset, "seeds": args.seeds, "data": args.data, "verify": not args.no_verify,
            "train": args.train_part, "corpus": args.corpus, "out": args.out, "time_budget": args.time_budget,
            "lm_from": args.lm_from or (), "device": args.device, "dry_run": args.dry_run, **overrides(args)}


def reproduce(args: argparse.Namespace) -> int:
    """What `imdb` does, for any data set of the paper; `all` fills its Tables 2 and 3.

    TASK is imdb, trec6, ag, dbpedia, yelp-bi, yelp-full, several of these, or all. With several, --data is a folder
    with a folder or file for each (imdb/, trec6/, ...), --out holds a run folder for each, and what can't be had is
    skipped and named. Exit code 1 if a result of several falls short of the paper.

    examples:
      ulmfit-fastai reproduce trec6 --data trec6.parquet --preset quick
      ulmfit-fastai reproduce ag --data ag_news/ --no-verify --train-part train_subset
      ulmfit-fastai reproduce all --data data/ --time-budget 8h
    """
    refuse_plan_as_json(args)
    options = {"corpus": args.corpus, "device": args.device, "parallel": args.parallel, "resume": not args.no_resume,
               "time_budget": args.time_budget, "dry_run": args.dry_run, **overrides(args)}
    if len(args.tasks) == 1 and args.tasks != ["all"]:
        from ..experiments.reproduction import reproduce as run_task

        task = args.tasks[0]
        options |= {"lm_from": args.lm_from, "out": args.out or f"runs/{task}", "verify": not args.no_verify,
                    "train": args.train_part}
        return show(args, run_task(task, args.preset, data=args.data, **options), options["out"])
    if args.no_verify or args.train_part or args.lm_from:
        raise UlmfitError("--no-verify, --train-part and --lm-from are for one data set: give one TASK.")
    from ..experiments.main_results import reproduce_all

    tasks = None if "all" in args.tasks else args.tasks
    results = reproduce_all(tasks, args.preset, data=args.data, out=args.out or "runs", **options)
    tell(args, results, {"rows": results.rows, "folder": results.folder})
    return results.exit_code


def ablate(args: argparse.Namespace) -> int:
    """Run every row of the paper's Table 4, 5, 6 or 7 and show it beside the paper's.

    Each row is a run with each seed; rows that share a language model share its fine-tuning. Errors are of a tenth of
    the training set, as in the paper. What is finished is kept: after a kill, or at the end of the time budget, the
    same command makes the rest. --out then holds the runs, TABLE.csv, TABLE.json and the figure; tables of one data
    set may share it, and the same command given twice at once, each with a core or a GPU of its own, shares the runs.
    `direction` is not a table but the comparison of forward, backward and both, on the test set.

    The default sizes are the paper's: for a GPU. --preset paper-small is for a CPU.

    examples:
      ulmfit-fastai ablate table7 --task trec6 --preset paper-small --seeds 3 --data trec6.parquet
      ulmfit-fastai ablate table6 --task imdb --time-budget 8h
      ulmfit-fastai ablate table7 --task trec6 --rows full,freez_discr_stlr --dry-run
    """
    settings = common(args)  # refused before the heavy imports
    from ..experiments.tables import ablate as run_table

    rows = args.rows.split(",") if args.rows else None
    return shown(args, run_table(args.table, args.task, rows=rows, **settings))


def lowshot(args: argparse.Namespace) -> int:
    """Figure 3: the error with few labels, from scratch, supervised and semi-supervised.

    Beside the three curves: two bags of words on the same labels, and how many labels training from scratch would need
    for the same error. `all` among the labels means all that there are. --out then holds the runs, lowshot.csv,
    lowshot.json and the figure; it may be that of the tables.

    --training paper unfreezes gradually with STLR and the paper's rates, whatever the preset does; --training preset
    trains as the preset has it, which is how a small language model learns most from few labels. --direction both
    averages a forward and a backward model; give it an --out of its own, where lowshot.json is then theirs.

    examples:
      ulmfit-fastai lowshot --task imdb --labels 100,500,1000,5000 --preset paper-small
      ulmfit-fastai lowshot --task imdb --preset few-labels --training preset --seeds 3 --set lm_seed=0
      ulmfit-fastai lowshot --task ag --labels 100,1000,all --kinds from_scratch,supervised --seeds 3
    """
    settings = common(args)  # refused before the heavy imports
    labels = [None if n == "all" else whole_number(n) for n in args.labels.split(",")]
    kinds = args.kinds.split(",") if args.kinds else LOW_SHOT
    from ..experiments.label_curves import lowshot as run_curves

    return shown(args, run_curves(args.task, labels, kinds=kinds, baselines=not args.no_baselines,
                                  most_texts=args.most_texts, training=args.training, **settings))


def figure4(args: argparse.Namespace) -> int:
    """Figure 4: the validation error by epoch, fine-tuning everything at once against ULMFiT.

    --out then holds the runs, figure4.csv, figure4.json and the figure; it may be that of the tables, whose runs are
    used.

    examples:
      ulmfit-fastai figure4 --task trec6 --preset paper-small --seeds 3
    """
    settings = common(args)  # refused before the heavy imports
    from ..experiments.epoch_curves import figure4 as run_figure

    return shown(args, run_figure(args.task, **settings))


def shown(args: argparse.Namespace, experiment: Any) -> int:
    """Print an experiment or its plan; returns the exit code, which says whether runs are missing."""
    tell(args, experiment, experiment)
    return STOPPED if getattr(experiment, "missing", None) else 0


def whole_number(text: str) -> int:
    """A number of labels; ValueError for anything else."""
    try:
        return int(text.replace("_", ""))
    except ValueError:
        raise UlmfitError(f"--labels: expected numbers with commas between them, or all; found {text!r}") from None


_DIRECTION = option("--direction", choices=DIRECTIONS,
                    help="language models to use (default: forward, as in the paper)")
_EXPERIMENT = (DATA, CORPUS, NO_VERIFY, TRAIN_PART, BASE, WEIGHTS, LM_FROM, SEEDS, OUT, DEVICE, TIME_BUDGET, DRY_RUN,
               SET, JSON)
EXPERIMENTS = (
    Command("reproduce", reproduce, (
        option("tasks", nargs="+", choices=(*TASKS, "all"), metavar="TASK", help="one data set, several, or all"),
        option("--preset", default="fastai", metavar="NAME", help=f"{PRESET_HELP} (default: %(default)s)"),
        DATA, CORPUS, NO_VERIFY, TRAIN_PART,
        option("--out", metavar="FOLDER", help="run folder; with several data sets, the folder that holds one for each "
                                               "(default: runs/TASK; with several, runs)"),
        option("--direction", choices=DIRECTIONS, help="language models to use (default: the recipe's)"),
        WEIGHTS, LM_FROM, DEVICE, PARALLEL, TIME_BUDGET, DRY_RUN, NO_RESUME, SEED, SET, JSON)),
    Command("ablate", ablate, (
        option("table", choices=tuple(ROWS), metavar="TABLE", help=", ".join(ROWS)), TASK,
        option("--rows", metavar="A,B", help="some of the table's rows (default: all)"),
        _DIRECTION,
        *_EXPERIMENT)),
    Command("lowshot", lowshot, (
        TASK, option("--labels", default="100,500,1000,5000", metavar="N,M", help="(default: %(default)s)"),
        option("--kinds", metavar="A,B", help=f"some of {', '.join(LOW_SHOT)} (default: all)"),
        option("--most-texts", type=int, metavar="N", help="labelled texts read by a classifier, all epochs together: "
                                                           "fewer epochs with many labels (default: the same for all)"),
        option("--training", choices=TRAINING, default="paper",
               help="who says how it is trained, the paper or the preset (default: %(default)s)"), _DIRECTION,
        option("--no-baselines", action="store_true", help="leave the bags of words out"), *_EXPERIMENT)),
    Command("figure4", figure4, (TASK, *_EXPERIMENT)),
)
