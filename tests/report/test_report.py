"""The HTML report: whole in itself, right in its numbers, and safe whatever the texts and names hold."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_run import write_fake_run
from matplotlib.figure import Figure

from ulmfit_fastai._files import read_json, write_json_atomic
from ulmfit_fastai._words import duration
from ulmfit_fastai.cli.app import main
from ulmfit_fastai.model.layers import build_classifier
from ulmfit_fastai.model.weights import Classifier
from ulmfit_fastai.predict.config import about
from ulmfit_fastai.predict.explanation import Explanation, Word
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.report.page import IN_PAGE, figure_html
from ulmfit_fastai.report.report import write_report
from ulmfit_fastai.report.words import explainer
from ulmfit_fastai.results.figures import comparison_figure, group_names, plot_schedule
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.texts.dataset import Dataset
from ulmfit_fastai.texts.imdb import load_imdb
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.tokens.stream import tokenize

ATTACK = "<script>alert('x')</script><img src=x onerror=alert(1)>{{7*7}}{% raw %}"
ROOM = Path(write_report.__code__.co_filename).parent
PRESETS_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "reproducing.md"
RESULTS = Path(__file__).parents[2] / "data" / "results"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Checked(HTMLParser):
    """Parses a page; keeps tags, attributes and words, and fails when an element is closed that was not open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words += data + " "

    def has(self, tag: str) -> bool:
        return any(name == tag for name, _ in self.tags)

    def words_once(self) -> str:
        return re.sub(r"\s+", " ", self.words)


def page_of(folder: Path, **options: object) -> str:
    return write_report(folder, **options).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("runs") / "both")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return page_of(folder)


@pytest.fixture(scope="module")
def reviews() -> Dataset:
    return synthetic_reviews(n_train=40, n_test=60, n_unsup=10)


def run_on(dataset: Dataset, folder: Path, **options) -> Path:
    """A fake run whose predictions are of this dataset's test texts."""
    ids = dataset.df.loc[dataset.df["split"] == "test", "id"].tolist()
    return write_fake_run(folder, curves=False, ids=ids, n=len(ids), sharpness=1.0, synthetic=dataset.synthetic,
                          fingerprint=dataset.fingerprint, **options)


# ------------------------------------------------------------------------------------------------------ whole in itself
def test_the_page_loads_nothing_and_runs_nothing(page):
    parsed = Checked(page)
    assert not any(parsed.has(tag) for tag in ("script", "link", "iframe", "object", "embed", "img", "base"))
    for tag, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or (tag == "a" and value.startswith("https://arxiv.org/"))
    styles = page[page.index("<style>"): page.index("</style>")]
    styles += " ".join(attributes.get("style") or "" for _, attributes in parsed.tags)
    assert "@import" not in styles and "url(http" not in styles and "default-src 'none'" in unescape(page)


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', page))
    assert references and references <= set(ids)


def test_figures_take_their_colours_from_the_page(page):
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    assert len(drawings) >= 7
    for drawing in drawings:
        assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", drawing)
        assert "var(--muted)" in drawing and "<style" not in drawing and "aria-label" in drawing
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", page))
    light, dark = (set(re.findall(r"(--[a-z0-9-]+):", part)) for part in _themes(page))
    assert used - {"--share", "--cell"} <= light == dark


def _themes(page: str) -> tuple[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", page, flags=re.S)[:2]
    return light, dark


def test_the_style_names_only_what_the_templates_hold_and_they_only_what_it_names():
    rules = re.sub(r"\{[^{}]*\}", " ", (ROOM / "page.css").read_text("utf8"))
    styled = set(re.findall(r"\.([a-z][a-z-]*)", rules))
    markup = re.sub(r"\{\{.*?\}\}", "", "".join(path.read_text("utf8") for path in ROOM.glob("*.jinja")))
    classes = {name for found in re.findall(r'class="([^"]*)"', markup) for name in found.split()}
    assert classes <= styled  # and what Python or a template fills in:
    assert styled - classes == {"good", "bad", "calm", "right", "wrong", "wide-only", "narrow-only"}


def test_light_and_dark_are_readable(page):
    for theme in _themes(page):
        colours = dict(re.findall(r"(--[a-z0-9-]+): (#[0-9a-f]{6})", theme))
        for name in ("--ink", "--muted", "--accent", "--second", "--good", "--bad", "--warn"):
            assert _contrast(colours[name], colours["--card"]) >= 4.5, (name, colours[name])
        for tone in ("--good", "--bad", "--warn"):
            assert _contrast(colours[tone], colours[f"{tone}-soft"]) >= 4.5, tone


def _contrast(one: str, other: str) -> float:
    """Contrast ratio as WCAG 2 defines it; 4.5 is its demand for text."""
    def luminance(colour: str) -> float:
        parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# ------------------------------------------------------------------------------------------------- right in its numbers
def test_the_page_says_the_result_the_paper_and_the_baseline(folder, page):
    result, words = Result.load(folder), Checked(page).words_once()
    low, high = result.interval
    assert f"{result.error:.2f}" in words and f"95 % interval {low:.2f} to {high:.2f}" in words
    assert result.verdict.text in words and "11.25 %" in words and "4.6 %" in words
    for direction in ("forward", "backward"):
        assert f"{result.errors[direction]:.2f} %" in words
    assert f"ECE {100 * result.calibration_error():.1f} %" in words
    assert "the whole run 2 h 27 min" in words and "2 h 27 min in all, 32 min of it in the stages below" in words


def test_the_confusion_matrix_of_the_page_is_the_results(folder, page):
    matrix = page[page.index('<table class="matrix">'):]
    cells = re.findall(r'<td class="(?:right|wrong)"[^>]*>([\d,]+)<', matrix[: matrix.index("</table>")])
    assert [int(cell.replace(",", "")) for cell in cells] == Result.load(folder).confusion().to_numpy().ravel().tolist()


def test_the_most_confident_mistakes_are_listed(folder, page):
    words = Checked(page).words_once()
    for _, row in Result.load(folder).mistakes(12).iterrows():
        assert f"{row['id']} {row['label']} {row['predicted']} {100 * row['confidence']:.2f} %" in words


def test_stages_recipe_versions_and_fingerprint_are_in_the_page(folder, page):
    words, run = Checked(page).words_once(), read_json(folder / "run.json")
    for stage in run["stages"]:
        assert stage["stage"] in words and f"{stage['peak_memory_mb'] / 1024:.1f} GB" in words
    for said in ("fastai 2.8.12", run["data"]["fingerprint"], run["recipe_hash"], "NVIDIA H200", "Recipe 'fastai'"):
        assert said in words
    assert "LSTM 1 from step" in page  # the drawing of the unfreezing, in words


@pytest.mark.parametrize("folder", sorted(path.parent for path in RESULTS.glob("*/report.html")), ids=lambda p: p.name)
def test_committed_pages_the_model_card_and_the_result_say_one_time(folder):
    result = Result.load(folder)
    stages = duration(sum(stage["seconds"] for stage in result.run["stages"]))
    words = Checked((folder / "report.html").read_text("utf8")).words_once()
    assert about(result.run)["seconds"] == pytest.approx(result.seconds, abs=0.06)
    assert f"the whole run {duration(result.seconds)} " in words
    ways = (f"{stages} of it in the stages below", f"{duration(result.seconds)}, nearly all of it in",
            f"in all, with directions side by side {stages} in the stages below")
    assert sum(way in words for way in ways) == 1


def test_the_table_of_presets_says_the_time_of_the_runs_that_it_links_to():
    page = PRESETS_PAGE.read_text("utf8")
    rows = re.findall(r"<!-- time: [a-z0-9-]+ --> ((?:\d+ h )?\d+ min).*?\(../../data/results/([a-z-]+)/report", page)
    assert {name for _, name in rows} >= {"imdb-quick", "imdb-few-labels"}
    assert [said for said, name in rows] == [duration(Result.load(RESULTS / name).seconds) for _, name in rows]


def test_a_run_whose_time_is_not_known_says_that_of_its_stages(tmp_path):
    folder = write_fake_run(tmp_path / "r", status="stopped", curves=False)
    run = read_json(folder / "run.json")
    write_json_atomic(folder / "run.json", {**run, "sessions": [{"started": run["started"]}]})  # the process was killed
    words = Checked(page_of(folder)).words_once()
    assert f"{duration(sum(stage['seconds'] for stage in run['stages']))} in the stages below, on NVIDIA" in words


def test_directions_with_rates_of_their_own_are_drawn_apart(tmp_path, page):
    words = Checked(page).words_once()
    assert "3 · Classifier, both directions" in words and "3 · Classifier, backward" not in words
    recipe = preset("fastai").replace(**{"classifier.backward_factor": 0.5})
    words = Checked(page_of(write_fake_run(tmp_path / "r", recipe=recipe))).words_once()
    assert "3 · Classifier, forward" in words and "3 · Classifier, backward" in words


def test_warnings_synthetic_data_and_the_tutorial_protocol_are_said(tmp_path):
    folder = write_fake_run(tmp_path / "r", curves=False, protocol="tutorial", synthetic=True,
                            warnings=("the disk was slow",))
    words = Checked(page_of(folder)).words_once()
    for said in ("the disk was slow", "Synthetic data", "Protocol 'tutorial'", "protocol tutorial"):
        assert said in words
    assert "4.60" not in words  # made-up texts are not put beside the paper


# --------------------------------------------------------------------------------------------------- with parts missing
def test_one_direction_without_a_baseline(tmp_path):
    folder = write_fake_run(tmp_path / "r", curves=False, directions=("forward",), baselines=False)
    words = Checked(page_of(folder)).words_once()
    assert "test error, forward" in words and "TF-IDF" not in words and "disagree" not in words


@pytest.mark.parametrize("status", ["stopped", "running"])
def test_an_unfinished_run_has_a_page_with_what_there_is(tmp_path, status):
    words = Checked(page_of(write_fake_run(tmp_path / "r", status=status))).words_once()
    assert f"Not finished {status} after 30 of 32 epochs" in words
    assert "Rates and unfreezing" in words and "Confusion" not in words


def test_a_run_killed_before_its_first_epoch_has_a_page(tmp_path):
    folder = write_fake_run(tmp_path / "r", status="running", curves=False)
    write_json_atomic(folder / "run.json", {**read_json(folder / "run.json"), "stages": [], "weights": {}})
    assert "after 0 of 32 epochs" in Checked(page_of(folder)).words_once()


def test_a_recipe_of_another_version_is_shown_as_it_stands(tmp_path):
    folder = write_fake_run(tmp_path / "r", curves=False)
    run = read_json(folder / "run.json")
    run["recipe"]["a_field_of_tomorrow"] = 42
    write_json_atomic(folder / "run.json", run)
    assert "a_field_of_tomorrow" in page_of(folder)


def test_many_classes_are_shown_as_their_worst_pairs(tmp_path):
    classes = tuple(f"class {i:02d}" for i in range(30))
    folder = write_fake_run(tmp_path / "r", curves=False, classes=classes, task="my topics", n=900, sharpness=2.0)
    page = page_of(folder)
    assert 'class="matrix"' not in page
    counts = Result.load(folder).confusion()
    worst = max(counts.iloc[i, j] for i in range(30) for j in range(30) if i != j)
    assert f'<td class="r">{worst}</td>' in page and "predicted as" in page


def test_a_faultless_run_has_a_page(tmp_path):
    folder = write_fake_run(tmp_path / "r", curves=False, sharpness=60.0)
    assert Result.load(folder).error == 0
    assert "Most confident mistakes" not in Checked(page_of(folder)).words_once()


# ----------------------------------------------------------------------------------------------- safe whatever it holds
def test_html_in_texts_names_and_warnings_stays_text(tmp_path, reviews):
    frame = reviews.df.assign(text=ATTACK + " " + reviews.df["text"])
    dataset = Dataset("custom", frame, reviews.classes, "here", synthetic=True)
    folder = run_on(dataset, tmp_path / "r", classes=("neg", ATTACK), task=ATTACK, warnings=(ATTACK,))
    for options in ({}, {"explain": by_hand}):
        parsed = Checked(page_of(folder, dataset=dataset, **options))
        assert not parsed.has("script") and not parsed.has("img")  # in class names, task, warnings and texts
        assert ATTACK in parsed.words and "</script>49" not in parsed.words


def by_hand(text: str, target: str) -> Explanation:
    words = tuple(Word(piece, 1.0 - number, (piece,)) for number, piece in enumerate(text.split()))
    return Explanation(words, "single", target, target, {target: 1.0}, 0.0, 0.0)


def test_texts_of_mistakes_are_shown_for_ones_own_data(tmp_path, reviews):
    folder = run_on(reviews, tmp_path / "r")
    row = Result.load(folder).mistakes(1).iloc[0]
    text = reviews.df.set_index("id").loc[row["id"], "text"]
    start = text.split("<br")[0][:60]
    assert start in Checked(page_of(folder, dataset=reviews)).words_once()
    assert start not in Checked(page_of(folder, dataset=reviews, show_texts=False)).words_once()


def test_texts_of_the_papers_data_sets_need_to_be_asked_for(tmp_path, reviews):
    dataset = Dataset("imdb", reviews.df, reviews.classes, "here")
    folder = run_on(dataset, tmp_path / "r")
    row = Result.load(folder).mistakes(1).iloc[0]
    start = reviews.df.set_index("id").loc[row["id"], "text"].split("<br")[0][:60]
    assert start not in Checked(page_of(folder, dataset=dataset)).words_once()
    assert start in Checked(page_of(folder, dataset=dataset, show_texts=True)).words_once()


def test_long_texts_are_cut_and_the_rest_can_be_opened(tmp_path, reviews):
    frame = reviews.df.assign(text=[f"start{i} " + "word " * 500 + f"end{i}" for i in range(len(reviews.df))])
    dataset = Dataset("custom", frame, reviews.classes, "here")
    page = page_of(run_on(dataset, tmp_path / "r"), dataset=dataset)
    assert re.search(r"start\d+ .{0,950}… ?</p>\s*<details>.*?end\d+", page, flags=re.S)


def test_line_breaks_of_reviews_become_line_breaks(tmp_path, reviews):
    frame = reviews.df.assign(text="one<br /><br />two")
    dataset = Dataset("custom", frame, reviews.classes, "here")
    assert "<p>one<br>two</p>" in page_of(run_on(dataset, tmp_path / "r"), dataset=dataset)


def with_classifiers(folder: Path, dataset: Dataset) -> Path:
    """The weights that a run of this dataset would have left there, untrained."""
    vocab = ["xxunk", "xxpad", "xxbos", *dict.fromkeys(tokens for text in tokenize(dataset.df["text"].tolist())
                                                       for tokens in text if not tokens.startswith("xx"))]
    model = Result.load(folder).recipe.model
    for direction in ("forward", "backward"):
        made = Classifier.from_model(build_classifier(len(vocab), 2, model), vocab, dataset.classes,
                                     direction=direction, meta={})
        made.save(folder / f"classifier_{direction}.safetensors", vocab_path=folder / "vocab.json")
    return folder


def test_the_words_behind_mistakes_are_marked_where_texts_are_shown(tmp_path, reviews):
    folder = with_classifiers(run_on(reviews, tmp_path / "r", recipe=preset("tiny")), reviews)
    page = page_of(folder, dataset=reviews, mistakes=2)
    assert "Words in blue spoke for the answer given" in page
    marked = re.findall(r'<span style="background:rgba[^"]*" title="([+-][0-9.]+)">', page)
    assert len(marked) > 4 and {one[0] for one in marked} == {"+", "-"}
    first = Result.load(folder).mistakes(1).iloc[0]["id"]
    text = reviews.df.set_index("id").loc[first, "text"].replace("<br />", " ")
    assert "".join(text.split())[:300] in "".join(Checked(page).words.split())
    for options in ({}, {"dataset": reviews, "show_texts": False}, {"dataset": reviews, "explain": False}):
        assert "background:rgba" not in page_of(folder, **options)
    dataset = Dataset("imdb", reviews.df, reviews.classes, "here")  # the paper's texts stay out, and so do their words
    (tmp_path / "i").mkdir()
    folder = with_classifiers(run_on(dataset, tmp_path / "i", recipe=preset("tiny")), reviews)
    assert "background:rgba" not in page_of(folder, dataset=dataset)


def test_the_shell_shows_texts_when_asked(tmp_path, tiny_imdb, capsys):
    dataset = load_imdb(tiny_imdb, verify=False)
    folder = run_on(dataset, tmp_path / "r")
    row = Result.load(folder).mistakes(1).iloc[0]
    start = dataset.df.set_index("id").loc[row["id"], "text"].split("<br")[0][:60]
    for options, there in (([], False), (["--texts", str(tiny_imdb)], True)):
        assert main(["report", str(folder), *options]) == 0
        assert (start in Checked((folder / "report.html").read_text("utf8")).words_once()) is there
    assert str(folder / "report.html") in capsys.readouterr().out


def test_explaining_ends_when_its_time_is_up_or_the_weights_are_gone(tmp_path, reviews):
    folder = with_classifiers(run_on(reviews, tmp_path / "r", recipe=preset("tiny")), reviews)
    result = Result.load(folder)
    assert explainer(result)("the plot was dull", "pos").target == "pos"
    assert explainer(result, seconds=0)("the plot was dull", "pos") is None
    (folder / "classifier_backward.safetensors").write_bytes(b"half a file")
    assert explainer(result) is None and "blue" not in page_of(folder, dataset=reviews)
    (folder / "classifier_backward.safetensors").unlink()
    assert explainer(result) is None


def test_long_texts_are_cut_between_words_when_explained_too(tmp_path, reviews):
    frame = reviews.df.assign(text=[f"start{i} " + "word " * 500 + f"end{i}" for i in range(len(reviews.df))])
    dataset = Dataset("custom", frame, reviews.classes, "here")
    page = page_of(run_on(dataset, tmp_path / "r"), dataset=dataset, explain=by_hand)
    assert re.search(r"start\d+ word.{0,70000}? …</p>\s*<details>.*?end\d+", page, flags=re.S)
    shown = re.findall(r'<div class="mistake">.*?…</p>', page, flags=re.S)
    assert shown and all(600 < len(Checked(part + "</div>").words) < 2500 for part in shown)


def test_texts_of_another_data_set_are_refused(tmp_path, folder, reviews):
    with pytest.raises(ValueError, match="other texts"):
        write_report(folder, dataset=reviews)
    with pytest.raises(ValueError, match="needs the texts"):
        write_report(folder, show_texts=True)


def test_a_folder_that_is_no_run_is_refused_and_gets_no_report(tmp_path):
    with pytest.raises(ValueError, match="not a run folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------------- figures
def test_plot_schedule_shows_each_group_of_a_phase_before_training():
    figure = plot_schedule(preset("fastai").classifier, 5, 20)
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == group_names("classifier", 5)
    peaks = sorted(max(line.get_ydata()) for line in figure.axes[0].lines if len(line.get_xdata()) > 10)
    assert len(peaks) == 5 and peaks[-1] == pytest.approx(preset("fastai").classifier.stages[0].lr, rel=0.02)


def test_groups_are_named_as_fastai_splits_them():
    assert group_names("classifier", 5) == ["embedding", "LSTM 1", "LSTM 2", "LSTM 3", "head"]
    assert group_names("lm", 4) == ["LSTM 1", "LSTM 2", "LSTM 3", "emb. + decoder"]


def test_the_comparison_puts_the_best_on_top(folder):
    table = Result.load(folder).table()
    labels = [label.get_text() for label in comparison_figure(table).axes[0].get_yticklabels()]
    assert labels[-1] == table.loc[table["error"].idxmin(), "what"]
    assert labels[0] == table.loc[table["error"].idxmax(), "what"]


def test_an_inline_figure_keeps_its_words_and_no_address():
    figure = Figure(figsize=(2, 1))
    figure.subplots().set_title("a < b", color=IN_PAGE.ink)
    html = figure_html(figure, "x", alt='say "so"')
    assert "a &lt; b" in html and "http" not in html and "var(--ink)" in html
    assert Checked(html).tags[1] == ("svg", {"viewbox": "0 0 144 72", "role": "img", "aria-label": 'say "so"'})
