"""The paper's numbers, as data.

Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification" (arXiv 1801.06146, ACL P18-1031).
Every number stands here once, with the place it is from and a mark for how it was read:

    C    in the paper's own text
    C2   in a text about the paper
    M    from memory, not looked up again
    D    derived from other numbers here, as its note says

All errors are in %.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._errors import UlmfitError


@dataclass(frozen=True)
class Number:
    """A number of the paper: its value, where it stands, and how it was read."""

    value: float
    where: str
    mark: str = "C"
    note: str = ""


@dataclass(frozen=True)
class Task:
    """A data set of the paper's Table 1."""

    name: str
    title: str
    kind: str
    classes: int
    train: int
    test: int
    unlabelled: int = 0
    mark_test: str = "C"
    note: str = ""


TASKS = {
    task.name: task for task in (
        Task("trec6", "TREC-6", "question", 6, 5452, 500, note="Table 1 rounds the training set to 5.5k"),
        Task("imdb", "IMDb", "sentiment", 2, 25000, 25000, unlabelled=50000),
        Task("yelp-bi", "Yelp-bi", "sentiment", 2, 560000, 38000, mark_test="M"),
        Task("yelp-full", "Yelp-full", "sentiment", 5, 650000, 50000, mark_test="M"),
        Task("ag", "AG", "topic", 4, 120000, 7600, mark_test="M"),
        Task("dbpedia", "DBpedia", "topic", 14, 560000, 70000, mark_test="M"),
    )
}
"""Table 1, with exact sizes where the paper rounds."""


@dataclass(frozen=True)
class Table:
    """Errors of the paper by row and task; `measured_on` is the set they were measured on, test or validation."""

    name: str
    title: str
    measured_on: str
    tasks: tuple[str, ...]
    rows: dict[str, tuple[str, tuple[float, ...]]]
    """key -> (the row's name in the paper, its error on each of `tasks`)"""
    ours: str
    """The key of ULMFiT's own row, the full method."""

    def error(self, row: str, task: str) -> Number:
        """The error in %.

        Raises:
            UlmfitError: the table has no such row or task.
        """
        if row not in self.rows or task not in self.tasks:
            raise UlmfitError(f"{self.title} has rows {', '.join(self.rows)} and tasks {', '.join(self.tasks)}; "
                              f"asked for {row!r} on {task!r}.")
        return Number(self.rows[row][1][self.tasks.index(task)], self.title.split(":")[0])

    def label(self, row: str) -> str:
        """The row's name as the paper prints it."""
        return self.rows[row][0]


_ANALYSED = ("imdb", "trec6", "ag")

TABLES = {
    table.name: table for table in (
        Table("table2-imdb", "Table 2: test error on IMDb", "test", ("imdb",), {
            "cove": ("CoVe (McCann et al., 2017)", (8.2,)),
            "oh-lstm": ("oh-LSTM (Johnson and Zhang, 2016)", (5.9,)),
            "virtual": ("Virtual (Miyato et al., 2016)", (5.9,)),
            "ulmfit": ("ULMFiT (ours)", (4.6,)),
        }, ours="ulmfit"),
        Table("table2-trec6", "Table 2: test error on TREC-6", "test", ("trec6",), {
            "cove": ("CoVe (McCann et al., 2017)", (4.2,)),
            "tbcnn": ("TBCNN (Mou et al., 2015)", (4.0,)),
            "lstm-cnn": ("LSTM-CNN (Zhou et al., 2016)", (3.9,)),
            "ulmfit": ("ULMFiT (ours)", (3.6,)),
        }, ours="ulmfit"),
        Table("table3", "Table 3: test error", "test", ("ag", "dbpedia", "yelp-bi", "yelp-full"), {
            "char-cnn": ("Char-level CNN (Zhang et al., 2015)", (9.51, 1.55, 4.88, 37.95)),
            "cnn": ("CNN (Johnson and Zhang, 2016)", (6.57, 0.84, 2.90, 32.39)),
            "dpcnn": ("DPCNN (Johnson and Zhang, 2017)", (6.87, 0.88, 2.64, 30.58)),
            "ulmfit": ("ULMFiT (ours)", (5.01, 0.80, 2.16, 29.98)),
        }, ours="ulmfit"),
        Table("table4", "Table 4: pretraining", "validation", _ANALYSED, {
            "without": ("Without pretraining", (5.63, 10.67, 5.52)),
            "with": ("With pretraining", (5.00, 5.69, 5.38)),
        }, ours="with"),
        Table("table5", "Table 5: quality of the language model", "validation", _ANALYSED, {
            "vanilla": ("Vanilla LM", (5.98, 7.41, 5.76)),
            "awd": ("AWD-LSTM LM", (5.00, 5.69, 5.38)),
        }, ours="awd"),
        Table("table6", "Table 6: fine-tuning the language model", "validation", _ANALYSED, {
            "none": ("No LM fine-tuning", (6.99, 6.38, 6.09)),
            "full": ("Full", (5.86, 6.54, 5.61)),
            "full_discr": ("Full + discr", (5.55, 6.36, 5.47)),
            "full_discr_stlr": ("Full + discr + stlr", (5.00, 5.69, 5.38)),
        }, ours="full_discr_stlr"),
        Table("table7", "Table 7: fine-tuning the classifier", "validation", _ANALYSED, {
            "from_scratch": ("From scratch", (9.93, 13.36, 6.81)),
            "full": ("Full", (6.87, 6.86, 5.81)),
            "full_discr": ("Full + discr", (5.57, 6.21, 5.62)),
            "last": ("Last", (6.49, 16.09, 8.38)),
            "chain_thaw": ("Chain-thaw", (5.39, 6.71, 5.90)),
            "freez": ("Freez", (6.37, 6.86, 5.81)),
            "freez_discr": ("Freez + discr", (5.39, 5.86, 6.04)),
            "freez_stlr": ("Freez + stlr", (5.04, 6.02, 5.35)),
            "freez_cos": ("Freez + cos", (5.70, 6.38, 5.29)),
            "freez_discr_stlr": ("Freez + discr + stlr", (5.00, 5.69, 5.38)),
        }, ours="freez_discr_stlr"),
    )
}

ONE_DIRECTION = Number(5.30, "section 5, Impact of bidirectionality", note="IMDb test error of a single model")
BOTH_DIRECTIONS = Number(4.58, "section 5, Impact of bidirectionality", note="Table 2 prints it as 4.6")
BIDIRECTIONAL_GAIN = (Number(0.5, "section 5, Impact of bidirectionality"),
                      Number(0.7, "section 5, Impact of bidirectionality"))

_SETUP = "section 4.1, Hyperparameters"
HYPERPARAMETERS: dict[str, Number] = {
    "emb_sz": Number(400, _SETUP), "n_layers": Number(3, _SETUP), "n_hid": Number(1150, _SETUP),
    "bptt": Number(70, _SETUP, note="variable length: section 3.3, after Merity et al. 2017"),
    "dropout layers": Number(0.4, _SETUP), "dropout RNN layers": Number(0.3, _SETUP),
    "dropout input embedding": Number(0.4, _SETUP), "dropout embedding": Number(0.05, _SETUP),
    "weight dropout": Number(0.5, _SETUP),
    "head_hidden": Number(50, _SETUP), "beta1": Number(0.7, _SETUP), "beta2": Number(0.99, _SETUP),
    "bs": Number(64, _SETUP), "lr lm": Number(0.004, _SETUP), "lr classifier": Number(0.01, _SETUP),
    "epochs lm": Number(15, "footnote 7", "C2", "TREC-6; longer on larger sets"),
    "epochs classifier": Number(50, "section 5"),
    "discriminative": Number(2.6, "section 3.2"), "cut_frac": Number(0.1, "section 3.2"),
    "ratio": Number(32, "section 3.2"),
    "lr without discr": Number(0.001, "section 5, Impact of classifier fine-tuning"),
    "lr chain-thaw last": Number(0.001, "section 5, Impact of classifier fine-tuning"),
    "lr chain-thaw others": Number(0.0001, "section 5, Impact of classifier fine-tuning"),
    "analysis valid_fraction": Number(0.1, "section 5"),
    "pretraining articles": Number(28595, "section 3.1"), "pretraining words": Number(103e6, "section 3.1"),
}


def stated(name: str) -> float:
    """A hyperparameter of the paper by its name in `HYPERPARAMETERS`."""
    return float(HYPERPARAMETERS[name].value)


def stated_whole(name: str) -> int:
    """The same where the paper counts something: layers, epochs, texts of a batch."""
    return int(HYPERPARAMETERS[name].value)


LOW_SHOT = {
    # With 100 labels, as good as training from scratch with so many times the labels (section 5, Figure 3).
    ("imdb", "supervised"): Number(10, "section 5, Low-shot learning"),
    ("ag", "supervised"): Number(20, "section 5, Low-shot learning"),
    ("ag", "semi-supervised"): Number(50, "section 5, Low-shot learning"),
    ("imdb", "semi-supervised"): Number(100, "section 5, Low-shot learning"),
}


@dataclass(frozen=True)
class Published:
    """An IMDb test accuracy (in %) that others have published for ULMFiT."""

    source: str
    forward: float | None = None
    backward: float | None = None
    both: float | None = None
    fastai_v2: bool = False

    def error(self, directions: str) -> float | None:
        """Test error in % of 'forward', 'backward' or 'both', if published."""
        accuracy = getattr(self, directions)
        return None if accuracy is None else round(100.0 - accuracy, 2)


PUBLISHED = (
    Published("the paper", forward=94.70, both=95.42),
    Published("fastai v1 example notebook", forward=94.96, backward=94.74, both=95.39),
    Published("fastai v2 example notebook", forward=94.51, fastai_v2=True),
    Published("fastai v2 text tutorial", forward=94.26, fastai_v2=True),
    Published("fastbook (fastai v2)", forward=94.3, both=95.1, fastai_v2=True),
    Published("a re-run of the authors' scripts", forward=94.35),
    Published("a plain PyTorch port", forward=92.11),
)
