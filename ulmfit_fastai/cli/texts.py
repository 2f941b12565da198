"""The commands for your own texts: train a classifier on a table, predict, evaluate, explain."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import UlmfitError
from .._files import expanded, write_text_atomic
from .._progress import Bar
from .options import (
    DEVICE,
    DIRECTIONS,
    DRY_RUN,
    FORMAT,
    JSON,
    NO_HEADER,
    NO_RESUME,
    SEED,
    SEP,
    SET,
    STOPPED,
    TIME_BUDGET,
    Command,
    encoding,
    option,
    overrides,
    say,
)
from .records import record_of, tell

if TYPE_CHECKING:
    import pandas as pd

    from ..classifier.estimator import ULMFiT
    from ..texts.tables import Layout

log = logging.getLogger(__name__)

TABLE = "CSV, TSV, JSON lines (.jsonl) or Parquet, plain or compressed (.gz .bz2 .xz .zst)"
MODEL = option("model", metavar="MODEL", help="a folder that `train` made, or any finished run folder")
TEXT = option("--text", nargs="+", metavar="COLUMN", help="column of the texts; several are read as one text each "
                                                          "(default: the model's own)")
INT8 = option("--int8", action="store_true", help="predict with LSTMs in 8-bit integers: faster on a CPU, at nearly "
                                                "the same probabilities")
PRECISION = option("--precision", default="fp32", choices=("auto", "fp32", "bf16", "fp16"),
                   help="what to predict in; auto: bf16 where the hardware multiplies it, faster, and a probability "
                        "changes in its third digit (default: %(default)s)")
ENCODING = option("--encoding", type=encoding, metavar="NAME",
                  help="encoding of the files, such as cp1252 (default: utf-8, or what a mark at their start says; for "
                       "a model, that of the file it was trained on)")
LAYOUT = (ENCODING, SEP, NO_HEADER, FORMAT)


def train(args: argparse.Namespace) -> int:
    """Train a classifier on your own table of texts and labels, resumable.

    FILE is CSV, TSV, JSON lines (.jsonl) or Parquet, plain or compressed. A label is a class, or a number
    (--task regression), or several classes with a mark between them (--label-delim). The language model reads all texts
    first, those of --unlabelled too. A part of the labelled texts is held out to measure the result (--valid-share).

    FOLDER then is the model: weights, words and settings without any code, a model card (README.md), the record of the
    run, and report.html: where the model errs, beside a bag of words on the same labels. The report shows some of the
    held-out texts; `ulmfit-fastai report FOLDER` writes it without. Interrupted, or at the end of the time budget, the
    same command goes on where it stopped.

    The presets few-labels and quick suit a CPU, fastai a GPU; they are fitted to how many texts there are. --dry-run
    says how long it would take here.

    examples:
      ulmfit-fastai train reviews.csv --text review --label sentiment --out model
      ulmfit-fastai train mails.parquet --text subject body --label folder --class-weight balanced --out model
      ulmfit-fastai train papers.jsonl --text abstract --label topics --label-delim ';' --out model
      ulmfit-fastai train wine.csv --text note --label points --task regression --unlabelled more.txt --out model
      ulmfit-fastai train meinungen.csv --label note --weights runs/de --lang runs/de/spm.model --out modell
    """
    options = overrides(args)  # refused before the heavy imports
    from ..classifier.fitted import Unfinished
    from ..texts.tables import read_table, standard_input
    from .table_columns import column_named, typed, unlabelled_of

    model = estimator(args, options)
    model.check_settings()
    layout = layout_of(args)
    frame = read_table(*standard_input(args.file, layout), layout=layout)
    try:
        text = [column_named(frame, name) for name in args.text or [_default(frame, "text", "--text")]]
        label = column_named(frame, args.label or _default(frame, "label", "--label"))
    except UlmfitError as error:
        raise UlmfitError(f"{args.file}: {error}") from error
    frame[label] = pd_series(typed(frame[label], args.label_delim, args.task), frame)
    frame.attrs.update(source=Path(args.file).name, label_delim=args.label_delim, encoding=args.encoding)
    columns: dict[str, Any] = {"text": text, "label": label, "unlabelled": unlabelled_of(args.unlabelled, text, layout)}
    try:
        if args.dry_run:
            plan = model.plan(frame, **columns)
            tell(args, plan, {"stages": plan.stages, "seconds": plan.seconds} if args.json else None)
            return 0
        model.fit(frame, **columns)
    except Unfinished as stopped:
        tell(args, stopped.in_shell_words, {"status": "stopped", "model": Path(args.out).resolve()})
        return STOPPED
    place = expanded(args.out).resolve()
    page = place / "report.html"
    tell(args, "\n".join([
        f"held-out texts: {model.held_out()}", f"model: {place}", f"report: {page}", "",
        "now:", f"  ulmfit-fastai predict {args.out} FILE --out predicted.csv",
        f"  ulmfit-fastai evaluate {args.out} FILE", f"  ulmfit-fastai explain {args.out} \"a text\""]),
        {"status": "finished", "held_out": model.metrics_, "model": place, "report": page})
    return 0


def predict(args: argparse.Namespace) -> int:
    """Predict the texts of a table: the same rows and columns, with the prediction and its probabilities added.

    FILE is CSV, TSV, JSON lines (.jsonl), Parquet or plain text (.txt, a text a line), also compressed, and of any
    size. The rows come out in their order, with the columns `predicted` and, for each class, `prob_CLASS`. A row
    without text stays, with nothing predicted. The format of --out is told by its name; without it, CSV goes to the
    screen, or with --json JSON lines.

    examples:
      ulmfit-fastai predict model new.csv --out predicted.csv
      ulmfit-fastai predict model new.jsonl.gz --text body --out predicted.parquet
      ulmfit-fastai predict runs/imdb reviews.txt
    """
    from ..classifier.estimator import ULMFiT
    from ..texts.table_reader import TableReader
    from ..texts.table_writer import TableWriter
    from .table_columns import predicted_columns

    if args.out is None:
        utf8_to_the_screen()
    reader = TableReader(args.file, layout=layout_of(args))
    out = expanded(args.out) if args.out else None
    if out is not None and out.exists() and reader.content is None and out.samefile(reader.path):
        raise UlmfitError(f"--out {args.out} is the file that is read: its rows would be gone; choose another --out")
    model = ULMFiT.load(args.model, device=args.device, int8=args.int8, precision=args.precision)
    reader = TableReader(reader.path, layout=layout_of(args, model.model_.config.encoding), content=reader.content)
    done, empty, beside_rows = 0, 0, out is None and sys.stdout.isatty()
    with (TableWriter(args.out, lines=args.json) as writer,
          closing(Bar("predicting", 1.0, log_every=60.0, shown=not beside_rows)) as bar):
        for frame in reader:
            added, missing = predicted_columns(model, frame, args.text, strict=args.strict)
            twice = [name for name in added if name in frame]
            if twice:
                raise UlmfitError(f"{args.file} has a column {twice[0]} already: rename it, or leave it out")
            writer.write(frame.assign(**added))
            done, empty = done + len(frame), empty + missing
            bar.show(reader.share, rows(done))
    if empty:
        log.warning("%s without text: nothing is predicted for %s", rows(empty), "it" if empty == 1 else "them")
    if args.out:
        place = Path(args.out).resolve()
        tell(args, f"{rows(done)}: {place}", {"rows": done, "without_text": empty, "out": place})
    return 0


def utf8_to_the_screen() -> None:
    """A table is UTF-8 wherever it goes; a closed screen is refused, since its rows would be lost."""
    if sys.__stdout__ is None and getattr(sys.stdout, "name", None) == os.devnull:
        raise UlmfitError("the standard output is closed, so that the rows would be lost", field="out",
                          advice="give `out=` a file")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


def evaluate(args: argparse.Namespace) -> int:
    """Compare a model's predictions with the labels of a table.

    Prints the error with its 95 % interval, F1, precision and recall of each class, and the confusion matrix (--json:
    the same as JSON); of numbers, the mean absolute error and R². --label and --text are needed where the columns are
    called otherwise than in training.

    examples:
      ulmfit-fastai evaluate model test.csv
      ulmfit-fastai evaluate runs/imdb reviews.parquet --text text --label label --json
    """
    from ..classifier.estimator import ULMFiT
    from ..texts.tables import read_table, standard_input
    from .table_columns import column_named, typed, with_text_and_label

    model = ULMFiT.load(args.model, device=args.device, int8=args.int8, precision=args.precision)
    config, target = model.model_.config, model.model_.target
    layout = layout_of(args, config.encoding)
    frame = read_table(*standard_input(args.file, layout), layout=layout)
    try:
        label = column_named(frame, args.label) if args.label else config.label if config.label in frame else (
            column_named(frame, _default(frame, "label", "--label")))
        text = None if args.text is None else [column_named(frame, name) for name in args.text]
    except UlmfitError as error:
        raise UlmfitError(f"{args.file}: {error}") from error
    delim = (args.label_delim or config.label_delim or ";") if target.kind == "multi" else None
    frame[label] = pd_series(typed(frame[label], delim, target.task, known=True), frame)
    frame = with_text_and_label(model, frame, text, label)
    found = model.evaluate(frame, text=text, label=label)
    tell(args, found, found)
    return 0


def explain(args: argparse.Namespace) -> int:
    """Show which words of a text moved the decision, in colour.

    --html writes a page to keep or to send: it holds the text. --json gives each word with its score.

    examples:
      ulmfit-fastai explain model "not as bad as I feared"
      ulmfit-fastai explain model "not as bad as I feared" --html why.html
      ulmfit-fastai explain model "not as bad as I feared" --target pos
    """
    from ..classifier.estimator import ULMFiT

    found = ULMFiT.load(args.model, device=args.device).explain(args.text_given, target=args.target)
    if args.html:
        write_text_atomic(expanded(args.html), found.to_html())
    if args.json:
        tell(args, None, {**record_of(found), "html": args.html})
    else:
        print(found.to_ansi(colour=sys.stdout.isatty()))
        if args.html:
            say(f"page: {expanded(args.html).resolve()}")
    return 0


def estimator(args: argparse.Namespace, options: dict[str, Any]) -> ULMFiT:
    """The estimator that `train` was asked for; `options` are fields of its recipe."""
    from ..classifier.estimator import ULMFiT

    seed, directions = options.pop("seed", None), options.pop("directions")
    if args.weights is not None:  # the model takes their sizes, which the field of the recipe alone would not do
        del options["weights"]
    return ULMFiT(args.preset, weights=args.weights, directions=directions, task=args.task, lang=args.lang,
                  class_weight=weights_of(args.class_weight), epochs=args.epochs, lm_epochs=args.lm_epochs,
                  settings=options or None, validation_fraction=args.valid, drop_missing=args.drop_missing,
                  out=args.out, resume=not args.no_resume, time_budget=args.time_budget, random_state=seed,
                  device=args.device, baseline=not args.no_baseline)


def weights_of(given: list[str] | None) -> str | dict[str, float] | None:
    """`--class-weight balanced`, or `--class-weight spam=5 ham=1`."""
    if not given or given == ["balanced"]:
        return "balanced" if given else None
    weights = {}
    for item in given:
        name, equals, value = item.rpartition("=")
        try:
            weights[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise UlmfitError(f"--class-weight expects balanced, or CLASS=NUMBER, as in spam=5; found {item}")
    return weights


def _default(frame: pd.DataFrame, name: str, flag: str) -> str:
    """The column that is meant when none is named."""
    from ..texts.values import columns_shown

    if any(str(column).strip() == name for column in frame.columns):
        return name
    one = str(frame.columns[0]) if frame.shape[1] == 1 else ""
    hint = "; give --sep if cells are separated by another mark" if any(mark in one for mark in ",;|\t") else ""
    raise UlmfitError(f"give {flag}: there is no column {name!r}; the columns are {columns_shown(frame)}{hint}")


def layout_of(args: argparse.Namespace, own: str | None = None) -> Layout:
    """How FILE is written, by the options; `own`: the encoding of the file that the model was trained on."""
    from ..texts.tables import Layout, encoding_of

    path = Path(args.file).expanduser()
    guessed = encoding_of(path, own) if args.encoding is None and own and path.is_file() else None
    given = args.encoding or guessed
    return Layout(**({"encoding": given} if given else {}), sep=args.sep, header=not args.no_header,
                  suffix=f".{args.format}" if args.format else None)


def pd_series(values: list[Any], frame: pd.DataFrame) -> pd.Series:
    """Values as they are as a column of the frame."""
    import pandas as pd

    return pd.Series(values, index=frame.index, dtype=object)


def rows(n: int) -> str:
    return f"{n:,} row{'s' * (n != 1)}"


TEXTS = (
    Command("train", train, (
        option("file", metavar="FILE", help=TABLE),
        option("--text", nargs="+", metavar="COLUMN", help="column of the texts; several are read as one text each "
                                                           "(default: text)"),
        option("--label", metavar="COLUMN", help="column of the labels (default: label)"),
        option("--out", required=True, metavar="FOLDER", help="the model, and what an interrupted run goes on from"),
        option("--unlabelled", metavar="PATH", help="more texts for the language model: a table with the text columns, "
                                                    "or a file or folder of text"),
        option("--preset", metavar="NAME", help="few-labels, quick, fastai, tiny, ..., a JSON file of a recipe, or a "
                                                "run folder (default: few-labels below 2,000 labelled texts, otherwise "
                                                "quick)"),
        option("--weights", metavar="NAME", help="language model to start from: english-small, wiki-small, wt103 "
                                                 "(downloaded if need be), none, or a run folder (default: "
                                                 "english-small, where --lang is en)"),
        option("--direction", choices=DIRECTIONS, help="language models to use (default: the preset's)"),
        option("--task", default="auto", choices=("auto", "classification", "multilabel", "regression"),
               help="(default: by the labels)"),
        option("--label-delim", metavar="MARK", help="what separates the classes of a text that may have several"),
        option("--class-weight", nargs="+", metavar="W", help="balanced, or CLASS=NUMBER ..."),
        option("--epochs", type=int, metavar="N", help="of the classifier's last stage (default: the preset's)"),
        option("--lm-epochs", type=int, metavar="N", help="of the language model; 0: don't fine-tune it"),
        option("--valid-share", dest="valid", type=float, metavar="SHARE",
               help="share of the labelled texts held out (default: the recipe's, 0.1 in every preset)"),
        option("--drop-missing", action="store_true",
               help="leave out rows without text, and use those without label for the language model only"),
        option("--no-baseline", action="store_true", help="leave the bag of words out"),
        option("--lang", default="en", metavar="CODE",
               help="language of the texts, or the SentencePiece model of --weights (default: %(default)s)"),
        *LAYOUT, DEVICE, TIME_BUDGET, DRY_RUN, NO_RESUME, SEED, SET, JSON)),
    Command("predict", predict, (
        MODEL, option("file", metavar="FILE", help=f"{TABLE}, or .txt"), TEXT,
        option("--out", metavar="FILE", help=".csv, .tsv, .jsonl or .parquet (default: CSV to the screen)"),
        option("--strict", action="store_true", help="refuse rows without text instead of leaving them without "
                                                       "prediction"),
        INT8, PRECISION, *LAYOUT, DEVICE, JSON)),
    Command("evaluate", evaluate, (
        MODEL, option("file", metavar="FILE", help=TABLE), TEXT,
        option("--label", metavar="COLUMN", help="column of the labels (default: the model's own)"),
        option("--label-delim", metavar="MARK", help="what separates several classes (default: as in training, or ;)"),
        JSON, INT8, PRECISION, *LAYOUT, DEVICE)),
    Command("explain", explain, (
        MODEL, option("text_given", metavar="TEXT", help="the text, in quotes"),
        option("--target", metavar="CLASS", help="the class to explain (default: the one predicted)"),
        option("--html", metavar="FILE", help="write a page of it too"), DEVICE, JSON)),
)
