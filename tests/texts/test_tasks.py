"""The paper's data sets from every layout in which they circulate, their numbers verified."""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from ulmfit_fastai.texts.sources import load_task
from ulmfit_fastai.texts.tasks import TASKS

PUBLISHED = {name: tuple(task.counts.values()) for name, task in TASKS.items()}
AG = pd.DataFrame(
    [(n % 4, f"Title {n}", f'Body {n}, with "quotes" and #39; \\ marks') for n in range(12)]
    + [(n % 4, f"Test {n}", f"More {n}") for n in range(8)],
    columns=["number", "title", "body"],
)
TREC = [
    "DESC:manner How did serfdom develop in and then leave Russia ?",
    "ENTY:cremat What films featured Popeye ?",
    "ABBR:exp What does caf\xe9 stand for ?",
    "HUM:ind Who is it ?",
    "LOC:city Where is it ?",
    "NUM:date When was it ?",
]


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the published numbers be those of the few rows above."""
    for name, train, test in (
        ("ag", 3, 2),
        ("yelp-full", 2, 1),
        ("yelp-bi", 2, 1),
        ("dbpedia", 1, 1),
        ("trec6", 1, 1),
        ("imdb", 2, 1),
    ):
        classes = len(TASKS[name].classes)
        few = dataclasses.replace(
            TASKS[name], train=(train,) * classes, test=(test,) * classes, unsup=3 if name == "imdb" else 0
        )
        monkeypatch.setitem(TASKS, name, few)


def ag_rows(part: str) -> pd.DataFrame:
    return AG[:12] if part == "train" else AG[12:]


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """AG as its authors published it: no header, classes from 1, title and body apart."""
    folder = tmp_path / "ag_news_csv"
    folder.mkdir()
    for part in ("train", "test"):
        ag_rows(part).assign(number=ag_rows(part)["number"] + 1).to_csv(
            folder / f"{part}.csv", header=False, index=False, quoting=1
        )
    (folder / "classes.txt").write_text("World\nSports\nBusiness\nSci/Tech\n")
    return folder


def hugging_face(part: str) -> pd.DataFrame:
    rows = ag_rows(part)
    return pd.DataFrame({"text": rows["title"] + " " + rows["body"], "label": rows["number"]})


def test_the_original_csv_gives_the_published_classes(original):
    made = load_task("ag", original)
    assert made.counts == {"train": 12, "test": 8, "unsup": 0} and made.name == "ag" and made.notes == ()
    assert made.df["text"][0] == "Title 0 " + AG["body"][0]
    assert made.df["label"][:4].tolist() == ["World", "Sports", "Business", "Sci/Tech"]
    assert made.df["id"].iloc[[0, 12]].tolist() == ["train/0", "test/0"]
    assert made.classes == ("Business", "Sci/Tech", "Sports", "World")


def test_every_layout_of_ag_reads_the_same(original, tmp_path):
    expected = load_task("ag", original).fingerprint
    with tarfile.open(tmp_path / "ag_news_csv.tgz", "w:gz") as archive:
        archive.add(original, arcname="ag_news_csv")
    places = [tmp_path / "ag_news_csv.tgz"]
    for kind in ("parquet", "csv", "csv.gz", "jsonl.xz", "kaggle"):
        if kind == "parquet":
            pytest.importorskip("pyarrow")
        folder = tmp_path / kind / "data"
        folder.mkdir(parents=True)
        for part in ("train", "test"):
            frame = hugging_face(part)
            if kind == "parquet":
                frame.to_parquet(folder / f"{part}-00000-of-00001.parquet")
            elif kind == "jsonl.xz":
                frame.to_json(folder / f"{part}.jsonl.xz", orient="records", lines=True)
            elif kind == "kaggle":
                rows = ag_rows(part)
                pd.DataFrame(
                    {"Class Index": rows["number"] + 1, "Title": rows["title"], "Description": rows["body"]}
                ).to_csv(folder / f"{part}.csv", index=False)
            else:
                frame.to_csv(folder / f"{part}.{kind}", index=False)
        places.append(folder.parent)
    both = pd.concat([hugging_face("test").assign(split="test"), hugging_face("train").assign(split="train")])
    both["label"] = [TASKS["ag"].classes[number] for number in both["label"]]
    both.to_csv(tmp_path / "both.csv.bz2", index=False)
    places.append(tmp_path / "both.csv.bz2")
    for place in places:
        assert load_task("ag", place).fingerprint == expected, place


def test_shards_are_read_together_though_one_holds_a_single_class(tmp_path):
    rows = hugging_face("train").sort_values("label")
    rows[:6].to_csv(tmp_path / "train-00000-of-00002.csv", index=False)
    rows[6:].to_csv(tmp_path / "train-00001-of-00002.csv", index=False)
    hugging_face("test").to_csv(tmp_path / "test.csv", index=False)
    assert load_task("ag", tmp_path).df["label"].value_counts().to_dict() == dict.fromkeys(TASKS["ag"].classes, 5)


def test_yelp_counts_stars_from_0_or_from_1(tmp_path):
    for first in (0, 1):
        for part, times in (("train", 2), ("test", 1)):
            stars = [star + first for star in range(5)] * times
            pd.DataFrame({"label": stars, "text": [f"{part} {n}" for n in range(len(stars))]}).to_csv(
                tmp_path / f"{part}.csv", index=False
            )
        made = load_task("yelp-full", tmp_path)
        assert made.classes == ("1", "2", "3", "4", "5")
        assert made.df["label"][:5].tolist() == ["1", "2", "3", "4", "5"]


def test_polarity_1_is_negative_and_2_positive_in_the_original(tmp_path):
    for part, times in (("train", 2), ("test", 1)):
        (tmp_path / f"{part}.csv").write_text(
            "".join(f'"1","{part} bad {n}"\n"2","{part} good {n}"\n' for n in range(times))
        )
    made = load_task("yelp-bi", tmp_path)
    assert all((label == "pos") == ("good" in text) for text, label in zip(made.df["text"], made.df["label"]))


def test_words_such_as_na_stay_texts(tmp_path):
    for part, times in (("train", 2), ("test", 1)):
        (tmp_path / f"{part}.csv").write_text('"1","NA"\n"2","null"\n' * times)
    assert set(load_task("yelp-bi", tmp_path).df["text"]) == {"NA", "null"}


def write_trec(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("train_5500.label", "TREC_10.label"):
        (folder / name).write_bytes("".join(f"{line}\n" for line in TREC).encode("latin-1"))
    return folder


def test_trecs_own_files_are_read_as_latin_1_with_the_coarse_classes(tmp_path):
    made = load_task("trec6", write_trec(tmp_path))
    assert made.counts == {"train": 6, "test": 6, "unsup": 0}
    assert made.df["label"][:6].tolist() == ["DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM"]
    assert made.df["text"][2] == "What does caf\xe9 stand for ?"
    assert made.notes == (
        "TREC_10.label is not byte for byte the original",
        "train_5500.label is not byte for byte the original",
    )


def test_a_changed_copy_of_trec_in_the_cache_is_refused(tmp_path, monkeypatch):
    external = pytest.importorskip("fastai.data.external")
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path))
    external.fastai_cfg.cache_clear()
    (tmp_path / "data").mkdir()
    write_trec(tmp_path / "data" / "trec6")
    with pytest.raises(ValueError, match=r"train_5500.label is not the original .*delete it and fetch https://cogcomp"):
        load_task("trec6")
    external.fastai_cfg.cache_clear()


def test_the_numbers_of_both_releases_of_trec_on_hugging_face_are_told_apart(tmp_path):
    new = ["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"]
    old = ["DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC"]
    for column, order in (("coarse_label", new), ("label-coarse", old)):
        for part in ("train", "test"):
            pd.DataFrame({column: range(6), "text": [f"a question of {name} ?" for name in order]}).to_csv(
                tmp_path / f"{part}.csv", index=False
            )
        made = load_task("trec6", tmp_path)
        assert all(label in text for label, text in zip(made.df["label"], made.df["text"])), column


def test_imdb_reads_from_a_table_with_its_unlabelled_part(tmp_path):
    for part, labels in (("train", [0, 0, 1, 1]), ("test", [0, 1]), ("unsupervised", [-1, -1, -1])):
        pd.DataFrame({"text": [f"{part} {n}" for n in range(len(labels))], "label": labels}).to_csv(
            tmp_path / f"{part}-00000-of-00001.csv", index=False
        )
    made = load_task("imdb", tmp_path)
    assert made.counts == {"train": 4, "test": 2, "unsup": 3} and made.classes == ("neg", "pos")
    assert made.df["label"].tolist() == ["neg", "neg", "pos", "pos", "neg", "pos", None, None, None]


def test_a_set_that_is_not_whole_is_refused_and_says_what_is_missing(original):
    rows = (original / "train.csv").read_text().splitlines(keepends=True)
    (original / "train.csv").write_text("".join(rows[:1] + rows[2:]))
    with pytest.raises(ValueError, match="train, class Sports: expected 3 rows, found 2"):
        load_task("ag", original)
    made = load_task("ag", original, verify=False)
    assert made.notes == ("not the whole data set: 11 of 12 training rows",)


def test_a_subset_under_another_name_is_accepted_only_when_asked_for(tmp_path):
    rows = pd.concat(
        [
            hugging_face("train").assign(split="train_subset"),
            hugging_face("train").assign(split="train_more"),
            hugging_face("test").assign(split="test"),
        ]
    )
    rows.to_csv(tmp_path / "ag.csv", index=False)
    with pytest.raises(
        ValueError, match="expected the parts train and test, found train_subset, train_more, test.*verify=False"
    ):
        load_task("ag", tmp_path)
    made = load_task("ag", tmp_path, verify=False)
    assert made.counts["train"] == 12
    assert made.notes == ("the training rows are the part 'train_subset'; not used: train_more",)
    assert (
        "'train_more'; not used: train_subset" in load_task("ag", tmp_path, verify=False, train="train_more").notes[0]
    )
    with pytest.raises(ValueError, match="has no part 'training'"):
        load_task("ag", tmp_path, verify=False, train="training")


def test_labels_of_another_set_are_refused(tmp_path):
    for part in ("train", "test"):
        pd.DataFrame({"label": [0, 7], "text": ["a", "b"]}).to_csv(tmp_path / f"{part}.csv", index=False)
    with pytest.raises(
        ValueError, match="labels must be World, Sports, Business, Sci/Tech, or their numbers .*found 0, 7"
    ):
        load_task("ag", tmp_path)


def test_an_unknown_name_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no data set is called 'sst2'; choose one of imdb, trec6"):
        load_task("sst2")
    with pytest.raises(ValueError, match="no table in"):
        load_task("ag", tmp_path)


def test_the_published_numbers_are_those_of_the_papers_table_1():
    assert PUBLISHED == {
        "imdb": (25_000, 25_000, 50_000),
        "trec6": (5_452, 500, 0),
        "ag": (120_000, 7_600, 0),
        "dbpedia": (560_000, 70_000, 0),
        "yelp-bi": (560_000, 38_000, 0),
        "yelp-full": (650_000, 50_000, 0),
    }


# ---- the real sets -------------------------------------------------------------------------------------------------


@pytest.fixture
def real_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()


def test_the_real_trec_is_whole_and_its_own_files_give_the_same(real_numbers, test_data, tmp_path):
    made = load_task("trec6", test_data / "trec6")
    assert made.counts == {"train": 5452, "test": 500, "unsup": 0} and made.notes == ()
    frame = pd.read_parquet(test_data / "trec6" / "trec6.parquet")
    for name, part in (("train_5500.label", "train"), ("TREC_10.label", "test")):
        rows = frame[frame["split"] == part]
        lines = [f"{label} {text}\n" for label, text in zip(rows["label_fine"], rows["text"])]
        (tmp_path / name).write_bytes("".join(lines).encode("latin-1"))
    again = load_task("trec6", tmp_path)
    assert again.fingerprint == made.fingerprint and again.notes == (), "byte for byte the original"


def test_the_real_parts_of_ag_dbpedia_and_yelp_are_read_and_called_parts(real_numbers, test_data):
    ag = load_task("ag", test_data / "ag_news", verify=False)
    assert ag.counts == {"train": 9998, "test": 7600, "unsup": 0}
    assert "not the whole data set: 9,998 of 120,000 training rows" in ag.notes
    dbpedia = load_task("dbpedia", test_data / "dbpedia14_subset", verify=False)
    assert dbpedia.counts["train"] == 14000 and len(dbpedia.classes) == 14
    yelp = load_task("yelp-full", test_data / "yelp_reviews_10k", verify=False)
    assert yelp.counts == {"train": 5000, "test": 5000, "unsup": 0} and yelp.classes == ("1", "2", "3", "4", "5")
