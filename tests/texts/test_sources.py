"""Texts in: IMDb in every layout, tables, folders, frames; what is broken is named, nothing is lost in silence."""

from __future__ import annotations

import dataclasses
import errno
import shutil
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest

from ulmfit_fastai.texts import imdb
from ulmfit_fastai.texts.dataset import Dataset, from_frame, join_fields
from ulmfit_fastai.texts.imdb import load_imdb
from ulmfit_fastai.texts.sources import from_file, from_folder, load_task
from ulmfit_fastai.texts.splits import split_validation
from ulmfit_fastai.texts.synthetic import synthetic_reviews


@pytest.fixture
def frame() -> pd.DataFrame:
    labels = ["pos", "neg"] * 30
    return pd.DataFrame({"review": [f"text number {n} is {label}" for n, label in enumerate(labels)], "mood": labels})


@pytest.fixture
def small_imdb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the published numbers be those of `tiny_imdb`."""
    monkeypatch.setattr(
        imdb, "EXPECTED", {"train/neg": 30, "train/pos": 30, "test/neg": 15, "test/pos": 15, "unsup": 40}
    )


@pytest.fixture
def own_copy(tiny_imdb: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_imdb, tmp_path / "imdb"))


@pytest.fixture
def fastai_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty cache of fastai's, and a network that is down."""
    external = pytest.importorskip("fastai.data.external")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("FASTAI_HOME", str(home))
    external.fastai_cfg.cache_clear()

    def no_network(*args, **kwargs):
        raise URLError(OSError(errno.ENETUNREACH, "Network is unreachable"))

    monkeypatch.setattr(external, "untar_data", no_network)
    monkeypatch.setattr("fastdownload.download_url", no_network)
    yield home
    external.fastai_cfg.cache_clear()


def tar_of(folder: Path, archive: Path, name: str) -> Path:
    with tarfile.open(archive, "w:gz" if archive.suffix != ".tar" else "w") as tar:
        tar.add(folder, arcname=name)
    return archive


# ---- IMDb ----------------------------------------------------------------------------------------------------------


def test_every_layout_of_imdb_reads_the_same(own_copy, tmp_path, small_imdb):
    original = load_imdb(own_copy)
    assert original.counts == {"train": 60, "test": 30, "unsup": 40}
    assert original.classes == ("neg", "pos")
    stanford = tmp_path / "other" / "aclImdb"
    shutil.copytree(own_copy, stanford)
    (stanford / "unsup").rename(stanford / "train" / "unsup")
    (stanford / "train" / "urls_pos.txt").write_text("http://www.imdb.com\n")
    (stanford / "README").write_text("Large Movie Review Dataset\n")
    places = [
        own_copy.parent,
        stanford,
        stanford.parent,
        tar_of(own_copy, tmp_path / "imdb.tgz", "imdb"),
        tar_of(stanford, tmp_path / "aclImdb_v1.tar.gz", "aclImdb"),
        tar_of(own_copy, tmp_path / "plain.tar", "./imdb"),
    ]
    for place in places:
        assert load_imdb(place).fingerprint == original.fingerprint, place


def test_a_folder_that_holds_only_the_archive_is_enough(own_copy, tmp_path, small_imdb):
    (tmp_path / "downloads").mkdir()
    tar_of(own_copy, tmp_path / "downloads" / "imdb.tgz", "imdb")
    assert load_imdb(tmp_path / "downloads").counts["train"] == 60


def test_ids_labels_and_order_follow_the_file_names(own_copy, small_imdb):
    df = load_imdb(own_copy).df
    assert df["id"].iloc[0].startswith("train/neg/0_") and df["id"].iloc[30].startswith("train/pos/0_")
    assert df["label"].iloc[:60].tolist() == ["neg"] * 30 + ["pos"] * 30
    assert all(label is None for label in df["label"][df["split"] == "unsup"])
    numbers = [int(name.split("/")[-1].split("_")[0]) for name in df["id"].iloc[:30]]
    assert numbers == list(range(30)), "by number, not 0, 1, 10, 11, ..., 2"
    review = (own_copy / f"{df['id'].iloc[5]}.txt").read_text(encoding="utf-8")
    assert df["text"].iloc[5] == review


def test_a_missing_review_is_named(own_copy, small_imdb):
    next((own_copy / "train" / "pos").glob("17_*.txt")).unlink()
    with pytest.raises(ValueError, match=r"train/pos: expected 30 reviews, found 29 \(missing: train/pos/17_\*.txt\)"):
        load_imdb(own_copy)
    part = load_imdb(own_copy, verify=False)
    assert part.counts["train"] == 59
    assert any("train/pos: expected 30 reviews, found 29" in note for note in part.notes)


def test_a_missing_part_is_named_without_a_list_of_its_files(own_copy, small_imdb):
    shutil.rmtree(own_copy / "unsup")
    with pytest.raises(ValueError, match=r"unsup: expected 40 reviews, found 0\n"):
        load_imdb(own_copy)


def test_too_many_reviews_are_refused_too(own_copy, small_imdb):
    (own_copy / "test" / "neg" / "copy_1.txt").write_text("A copy.")
    with pytest.raises(ValueError, match="test/neg: expected 15 reviews, found 16"):
        load_imdb(own_copy)


def test_an_empty_review_is_named(own_copy, small_imdb):
    victim = next((own_copy / "test" / "neg").glob("3_*.txt"))
    victim.write_text(" \n")
    with pytest.raises(ValueError, match=f"found 1 empty: test/neg/{victim.name}"):
        load_imdb(own_copy)


def test_a_review_that_is_not_utf8_is_named(own_copy, small_imdb):
    victim = next((own_copy / "unsup").glob("3_*.txt"))
    victim.write_bytes("Un caf\xe9".encode("latin-1"))
    with pytest.raises(ValueError, match=f"{victim.name} is not utf-8"):
        load_imdb(own_copy)


@pytest.mark.parametrize("kept", [0.0005, 0.3, 0.9, 0.999])
def test_a_truncated_archive_is_refused(own_copy, tmp_path, small_imdb, kept):
    whole = tar_of(own_copy, tmp_path / "whole.tgz", "imdb").read_bytes()
    cut = tmp_path / "cut.tgz"
    cut.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ValueError, match=r"cut.tgz.* is damaged or was cut off"):
        load_imdb(cut)


def test_an_archive_with_a_flipped_byte_is_refused(own_copy, tmp_path, small_imdb):
    archive = tar_of(own_copy, tmp_path / "imdb.tgz", "imdb")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(ValueError):
        load_imdb(archive)


@pytest.mark.parametrize("damage", [lambda whole: whole[:-6], lambda whole: whole[:-8] + bytes(4) + whole[-4:]])
def test_the_checksum_at_an_archives_end_is_looked_at(own_copy, tmp_path, small_imdb, damage):
    (own_copy / "README").write_bytes(bytes(100_000))  # the end is not yet read when the reviews are
    whole = tar_of(own_copy, tmp_path / "whole.tgz", "imdb").read_bytes()
    (tmp_path / "cut.tgz").write_bytes(damage(whole))
    with pytest.raises(ValueError, match=r"cut.tgz.* is damaged or was cut off"):
        load_imdb(tmp_path / "cut.tgz")


def test_reading_an_archive_writes_nothing(own_copy, tmp_path, small_imdb):
    archive = tar_of(own_copy, tmp_path / "imdb.tgz", "../../imdb")
    before = sorted(tmp_path.rglob("*"))
    load_imdb(archive)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_part_that_was_cleaned_differently_is_named(tmp_path, monkeypatch, caplog):
    for part, bare in (
        ("train/neg", True),
        ("train/pos", True),
        ("test/neg", False),
        ("test/pos", False),
        ("unsup", False),
    ):
        (tmp_path / part).mkdir(parents=True)
        for number in range(60):
            text = "Good start.<br /><br />Bad end." if number % 10 < 6 else "Nothing to see here."
            (tmp_path / part / f"{number}_5.txt").write_text(
                text.replace("<br /><br />", "" if bare else "<br /><br />")
            )
    monkeypatch.setattr(imdb, "EXPECTED", dict.fromkeys(imdb.EXPECTED, 60))
    notes = load_imdb(tmp_path).notes
    assert len(notes) == 1 and notes[0].startswith("train/neg, train/pos cleaned differently")
    assert "train/neg 0%" in notes[0] and "test/pos 60%" in notes[0]
    assert "cleaned differently" in caplog.text


def test_a_part_of_a_table_that_was_cleaned_differently_is_named_too(tmp_path, monkeypatch):
    few = dataclasses.replace(imdb.TASKS["imdb"], train=(60, 60), test=(60, 60), unsup=0)
    monkeypatch.setitem(imdb.TASKS, "imdb", few)
    for part, mark in (("train", " "), ("test", "<br />")):
        texts = [f"Start {n}.{mark}End." for n in range(120)]
        pd.DataFrame({"text": texts, "label": [0, 1] * 60}).to_csv(tmp_path / f"{part}.csv", index=False)
    assert "train/neg, train/pos cleaned differently" in load_imdb(tmp_path).notes[0]


def test_a_path_without_imdb_is_refused_with_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match="no such file or folder"):
        load_imdb(tmp_path / "nowhere")
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(ValueError, match=r"no IMDb set in .*expected .*unsup.*found notes.md"):
        load_imdb(tmp_path)
    with pytest.raises(ValueError, match="neither a folder nor a .tgz"):
        load_imdb(tmp_path / "notes.md")


def test_without_network_and_cache_the_message_says_what_to_put_where(fastai_home):
    with pytest.raises(ValueError) as raised:
        load_imdb()
    message = str(raised.value)
    assert "https://s3.amazonaws.com/fast-ai-nlp/imdb.tgz" in message and "144 MB" in message
    assert str(fastai_home / "archive" / "imdb.tgz") in message


def test_without_network_trec6_names_its_own_address(fastai_home):
    with pytest.raises(ValueError) as raised:
        load_task("trec6")
    assert "https://cogcomp.seas.upenn.edu/Data/QA/QC/train_5500.label" in str(raised.value)
    assert str(fastai_home / "data" / "trec6" / "train_5500.label") in str(raised.value)


def test_a_full_disk_is_called_that(fastai_home, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fastai.data.external.untar_data", full)
    with pytest.raises(ValueError, match="the disk is full.*FASTAI_HOME"):
        load_task("ag")


def test_an_archive_put_into_fastais_cache_by_hand_is_used_as_it_is(own_copy, fastai_home, small_imdb):
    (fastai_home / "archive").mkdir()
    tar_of(own_copy, fastai_home / "archive" / "imdb.tgz", "imdb")
    assert load_imdb().counts["unsup"] == 40


def test_an_unpacked_set_in_fastais_cache_is_used_without_network(own_copy, fastai_home, small_imdb):
    (fastai_home / "data").mkdir()
    own_copy.rename(fastai_home / "data" / "imdb")
    assert load_imdb().counts["unsup"] == 40


# ---- frames --------------------------------------------------------------------------------------------------------


def test_a_frame_becomes_a_dataset(frame):
    made = from_frame(frame, text="review", label="mood", unlabelled=["more", "texts"])
    assert made.counts == {"train": 60, "test": 0, "unsup": 2}
    assert made.classes == ("neg", "pos") and made.name == "custom" and not made.synthetic
    assert made.df["id"].iloc[[0, 59, 60]].tolist() == ["0", "59", "unsup-0"]
    assert list(made.df.index) == list(range(62))
    assert made.df["label"].iloc[-1] is None


def test_missing_texts_are_named_by_row_and_column(frame):
    frame.loc[17, "review"] = None
    frame.loc[40, "review"] = "  "
    with pytest.raises(ValueError, match=r"rows 17, 40 \(counted from 0\) of column review are empty \(2 of 60\)"
                                         ".*drop_missing=True"):
        from_frame(frame, text="review", label="mood")
    made = from_frame(frame, text="review", label="mood", drop_missing=True)
    assert made.counts["train"] == 58
    assert made.notes == ("rows 17, 40 (counted from 0) of column review are empty: left out",)
    assert made.df["id"].iloc[17] == "18", "the others keep their ids"


def test_missing_labels_are_named_and_their_texts_not_lost(frame):
    frame.loc[3, "mood"] = np.nan
    with pytest.raises(ValueError, match=r"row 3 \(counted from 0\) of column mood is without a label"):
        from_frame(frame, text="review", label="mood")
    made = from_frame(frame, text="review", label="mood", drop_missing=True)
    assert made.counts == {"train": 59, "test": 0, "unsup": 1}
    assert made.df["label"].iloc[3] is None and "row 3" in made.notes[0]


def test_the_rows_named_are_those_of_the_frames_own_index(frame):
    frame.index = [f"order-{n}" for n in range(60)]
    frame.loc["order-7", "review"] = ""
    with pytest.raises(ValueError, match="row order-7 of column review is empty"):
        from_frame(frame, text="review", label="mood")


def test_one_class_is_refused(frame):
    with pytest.raises(ValueError, match=r"column mood has one class only \(pos\) in its 30 training rows"):
        from_frame(frame[frame["mood"] == "pos"], text="review", label="mood")


def test_a_column_of_texts_given_as_labels_is_refused(frame):
    with pytest.raises(ValueError, match="is it the column of the labels?"):
        from_frame(frame, text="mood", label="review")


def test_a_column_that_is_not_there_is_named_beside_those_that_are(frame):
    with pytest.raises(ValueError, match="no column text, label; the columns are review, mood"):
        from_frame(frame, text="text", label="label")


def test_numeric_labels_become_strings_without_a_fraction(frame):
    frame["mood"] = [1.0, 0.0] * 30
    assert from_frame(frame, text="review", label="mood").classes == ("0", "1")
    frame["mood"] = [True, False] * 30
    assert from_frame(frame, text="review", label="mood").classes == ("False", "True")
    frame["mood"] = pd.Categorical(["b", "a"] * 30, categories=["a", "b", "c"])
    assert from_frame(frame, text="review", label="mood").classes == ("a", "b")


def test_several_text_columns_are_joined_with_fastais_field_marks(frame):
    frame["title"] = "A title"
    frame.loc[1, "title"] = None
    made = from_frame(frame, text=["title", "review"], label="mood")
    assert made.df["text"].iloc[0] == join_fields(["A title", frame["review"][0]])
    assert made.df["text"].iloc[0] == f"xxfld 1 A title xxfld 2 {frame['review'][0]}"
    assert made.df["text"].iloc[1] == f"xxfld 1  xxfld 2 {frame['review'][1]}", "an empty field keeps its mark"
    assert join_fields(["alone"]) == "alone"


def test_joined_fields_are_what_fastai_itself_makes_in_training():
    core = pytest.importorskip("fastai.text.core")
    frame = pd.DataFrame({"a": ["one", "x y"], "b": ["two", "z"], "c": ["three", "w"]})
    assert [join_fields(row) for row in frame.itertuples(index=False)] == list(
        core._join_texts(frame, mark_fields=True)
    )


def test_lists_of_labels_and_labels_with_a_delimiter_make_single_classes(frame):
    frame["mood"] = [["sad", "funny"], ["funny"]] * 30
    made = from_frame(frame, text="review", label="mood")
    assert made.classes == ("funny", "sad") and made.label_delim == ";" and made.df["label"][0] == "funny;sad"
    frame["mood"] = ["sad|funny", "long"] * 30
    assert from_frame(frame, text="review", label="mood", label_delim="|").classes == ("funny", "long", "sad")


def test_a_split_column_is_obeyed_and_strange_names_refused(frame):
    frame["part"] = ["train"] * 40 + ["Test"] * 10 + ["unlabelled"] * 10
    made = from_frame(frame, text="review", label="mood", split="part")
    assert made.counts == {"train": 40, "test": 10, "unsup": 10}
    assert made.df["label"][made.df["split"] == "unsup"].isna().all()
    frame.loc[0, "part"] = "dev"
    with pytest.raises(ValueError, match="column part must say train, test or unsup; found dev"):
        from_frame(frame, text="review", label="mood", split="part")


def test_a_fraction_of_test_rows_is_drawn_in_proportion_and_by_the_seed(frame):
    one, same, other = (from_frame(frame, text="review", label="mood", test=0.2, seed=seed) for seed in (0, 0, 1))
    assert one.counts == {"train": 48, "test": 12, "unsup": 0}
    assert one.df[one.df["split"] == "test"]["label"].value_counts().to_dict() == {"pos": 6, "neg": 6}
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_a_class_that_only_the_test_rows_have_is_noted(frame):
    made = from_frame(frame, text="review", label="mood", test=pd.DataFrame({"review": ["so so"], "mood": ["mixed"]}))
    assert made.classes == ("mixed", "neg", "pos")
    assert "class mixed occurs in the test rows only" in made.notes[0]


def test_the_fingerprint_changes_with_every_text_label_and_split(frame):
    base = from_frame(frame, text="review", label="mood").fingerprint
    changed = frame.copy()
    changed.loc[59, "review"] += "."
    assert from_frame(changed, text="review", label="mood").fingerprint != base
    changed = frame.copy()
    changed.loc[59, "mood"] = "pos"
    assert from_frame(changed, text="review", label="mood").fingerprint != base
    assert (
        from_frame(frame.assign(s=["train"] * 59 + ["test"]), text="review", label="mood", split="s").fingerprint
        != base
    )
    assert from_frame(frame.copy(), text="review", label="mood").fingerprint == base


def test_ids_that_repeat_are_refused(frame):
    frame["key"] = ["a"] * 2 + [str(n) for n in range(58)]
    with pytest.raises(ValueError, match="ids must be unique; seen more than once: a"):
        from_frame(frame, text="review", label="mood", id="key")


# ---- files and folders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "r.csv",
        "r.csv.gz",
        "r.csv.bz2",
        "r.csv.xz",
        "r.tsv",
        "r.jsonl",
        "r.jsonl.gz",
        "r.ndjson",
        "r.json",
        "r.parquet",
        "r.csv.zst",
        "r.jsonl.zst",
    ],
)
def test_every_kind_of_table_reads_the_same(frame, tmp_path, name):
    frame.loc[0, "review"] = 'NA, "quoted"\nand on a second line: café'
    frame.loc[1, "review"] = "NA"
    frame.loc[2, "review"] = "2004"
    path = tmp_path / name
    if name.endswith(".zst"):
        pytest.importorskip("zstandard")
    if ".parquet" in name:
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    elif ".json" in name or ".ndjson" in name:
        frame.to_json(path, orient="records", lines=not name.endswith(".json"))
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in name else ",")
    assert (
        from_file(path, text="review", label="mood").fingerprint
        == from_frame(frame, text="review", label="mood").fingerprint
    )


def test_zstandard_is_read_by_pyarrow_when_its_own_package_is_missing(frame, tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    with pyarrow.output_stream(tmp_path / "r.csv.zst", compression="zstd") as stream:
        stream.write(frame.to_csv(index=False).encode())
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    assert len(from_file(tmp_path / "r.csv.zst", text="review", label="mood")) == 60


def test_a_byte_order_mark_is_no_part_of_a_columns_name(frame, tmp_path):
    frame.to_csv(tmp_path / "r.csv", index=False, encoding="utf-8-sig")
    assert from_file(tmp_path / "r.csv", text="review", label="mood").counts["train"] == 60


def test_a_table_that_cannot_be_read_is_named(frame, tmp_path):
    whole = tmp_path / "r.csv.gz"
    frame.to_csv(whole, index=False)
    (tmp_path / "cut.csv.gz").write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(ValueError, match="cut.csv.gz .*cut off"):
        from_file(tmp_path / "cut.csv.gz", text="review", label="mood")
    (tmp_path / "r.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="cannot read .*r.parquet"):
        from_file(tmp_path / "r.parquet", text="review", label="mood")
    (tmp_path / "latin.csv").write_bytes("review,mood\ncafé,pos\n".encode("latin-1"))
    with pytest.raises(ValueError, match="latin.csv is not utf-8.* Give its encoding"):
        from_file(tmp_path / "latin.csv", text="review", label="mood")
    (tmp_path / "run.json").write_text('{"mood": "pos", "n": 3}')
    with pytest.raises(ValueError, match="run.json: expected a list of objects.* an object with the keys mood, n$"):
        from_file(tmp_path / "run.json", text="review", label="mood")
    (tmp_path / "lines.json").write_text('{"review": "fine"}\n{"review": "dull"}\n')
    with pytest.raises(ValueError, match="lines.json: Extra data.* with an object on each line is called .jsonl"):
        from_file(tmp_path / "lines.json", text="review", label="mood")
    (tmp_path / "r.jsonl").write_text('{"review": "fine", "mood": "pos"}\n["dull", "neg"]\n')
    with pytest.raises(ValueError, match=r'r.jsonl: line 2 is no JSON object but \["dull", "neg"\]'):
        from_file(tmp_path / "r.jsonl", text="review", label="mood")
    (tmp_path / "r.doc").write_text("?")
    with pytest.raises(ValueError, match="cannot tell the format"):
        from_file(tmp_path / "r.doc", text="review", label="mood")
    with pytest.raises(ValueError, match="no such file"):
        from_file(tmp_path / "none.csv", text="review", label="mood")


def test_an_empty_cell_is_named_with_the_file(frame, tmp_path):
    frame.loc[5, "review"] = ""
    frame.to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(ValueError, match=r"r.csv: row 5 \(counted from 0\) of column review is empty"):
        from_file(tmp_path / "r.csv", text="review", label="mood")


def write_folder(root: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"text {number} of {name}", encoding="utf-8")
    return root


def test_a_folder_per_class_is_read_with_or_without_parts(tmp_path):
    flat = write_folder(tmp_path / "flat", [f"{label}/{n}.txt" for label in ("good", "bad") for n in range(6)])
    assert from_folder(flat).counts == {"train": 12, "test": 0, "unsup": 0}
    assert from_folder(flat, test=0.5).counts == {"train": 6, "test": 6, "unsup": 0}
    parts = write_folder(
        tmp_path / "parts",
        [f"{part}/{label}/{n}.txt" for part in ("train", "test") for label in ("good", "bad") for n in range(6)]
        + ["unsup/7.txt"],
    )
    made = from_folder(parts)
    assert made.counts == {"train": 12, "test": 12, "unsup": 1} and made.classes == ("bad", "good")
    assert set(made.df["id"]) > {"train/good/0", "test/bad/5", "unsup/7"}
    packed = tar_of(parts, tmp_path / "parts.tgz", "some/parts")
    assert sorted(from_folder(packed).df["text"]) == sorted(made.df["text"])
    assert from_folder(packed).counts == made.counts


def test_a_folder_valid_is_the_test_part_unless_there_is_one(tmp_path):
    root = write_folder(
        tmp_path,
        [f"{part}/{label}/{n}.txt" for part in ("train", "valid") for label in ("good", "bad") for n in range(3)],
    )
    made = from_folder(root)
    assert (
        made.counts == {"train": 6, "test": 6, "unsup": 0}
        and "'valid' was read as part of the test set" in made.notes[0]
    )
    write_folder(tmp_path, ["test/good/0.txt", "test/bad/0.txt"])
    assert from_folder(root).counts == {"train": 12, "test": 2, "unsup": 0}


def test_what_is_wrong_in_a_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="no .txt file"):
        from_folder(tmp_path)
    root = write_folder(tmp_path, ["good/1.txt", "good/2.txt", "bad/1.txt", "bad/2.txt"])
    (root / "bad" / "2.txt").write_text("")
    with pytest.raises(ValueError, match="row bad/2 of column text is empty"):
        from_folder(root)
    shutil.rmtree(root / "bad")
    with pytest.raises(ValueError, match=r"one class only \(good\)"):
        from_folder(root)


# ---- splits --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Dataset:
    return synthetic_reviews(n_train=200, n_test=50, n_unsup=300)


def test_the_clean_protocol_keeps_test_texts_from_everything_but_the_test(data):
    splits = split_validation(data)
    test = set(data.rows("test"))
    assert set(splits.test) == test
    for rows in (splits.train, splits.valid, splits.lm_train, splits.lm_valid):
        assert not test & set(rows)
    assert set(splits.train) | set(splits.valid) == set(data.rows("train"))
    assert not set(splits.train) & set(splits.valid)
    assert set(splits.lm_train) | set(splits.lm_valid) == set(data.rows("train")) | set(data.rows("unsup"))
    assert not set(splits.lm_train) & set(splits.lm_valid)


def test_no_stage_trains_on_a_text_that_it_is_validated_by(data):
    splits = split_validation(data)
    assert set(splits.valid) <= set(splits.lm_valid)
    assert not set(splits.valid) & set(splits.lm_train)
    assert len(splits.lm_valid) == 50, "a tenth of the 500 training and unlabelled texts"


def test_the_validation_part_has_the_classes_in_proportion(data):
    splits = split_validation(data, fraction=0.1)
    labels = data.df["label"].to_numpy()
    assert len(splits.valid) == 20 and (labels[splits.valid] == "pos").sum() == 10
    uneven = from_frame(
        pd.DataFrame({"t": [f"t{n}" for n in range(1000)], "l": ["a"] * 900 + ["b"] * 95 + ["c"] * 5}),
        text="t",
        label="l",
    )
    drawn = uneven.df["label"].to_numpy()[split_validation(uneven).valid]
    assert [(drawn == c).sum() for c in "abc"] == [90, 10, 1], "the largest remainder rounds up, no class is left out"


def test_splits_are_sorted_int64_and_the_same_for_the_same_seed(data):
    one, same, other = (split_validation(data, seed=seed) for seed in (3, 3, 4))
    for name in ("train", "valid", "test", "lm_train", "lm_valid"):
        rows = getattr(one, name)
        assert rows.dtype == np.int64 and (np.diff(rows) > 0).all()
        assert np.array_equal(rows, getattr(same, name))
    assert not np.array_equal(one.valid, other.valid)


def test_the_drawn_rows_have_not_changed_since_they_were_first_published(data):
    assert split_validation(data).valid.tolist() == [
        5,
        16,
        20,
        36,
        52,
        72,
        82,
        90,
        93,
        94,
        120,
        154,
        158,
        160,
        161,
        168,
        180,
        194,
        197,
        198,
    ]


def test_the_tutorial_protocol_validates_on_the_test_set_and_reads_its_texts(data):
    splits = split_validation(data, protocol="tutorial")
    assert np.array_equal(splits.valid, data.rows("test")) and np.array_equal(splits.train, data.rows("train"))
    every = set(splits.lm_train) | set(splits.lm_valid)
    assert every == set(range(len(data))) and not set(splits.lm_train) & set(splits.lm_valid)
    assert len(splits.lm_valid) == 55


def test_few_labels_are_balanced_nested_and_leave_validation_and_texts_alone(data):
    full = split_validation(data)
    few, more = (split_validation(data, n_labels=n) for n in (20, 61))
    labels = data.df["label"].to_numpy()
    assert len(few.train) == 20 and (labels[few.train] == "pos").sum() == 10
    assert len(more.train) == 61 and abs((labels[more.train] == "pos").sum() - 30.5) < 1
    assert set(few.train) < set(more.train) < set(full.train)
    for splits in (few, more):
        assert np.array_equal(splits.valid, full.valid) and np.array_equal(splits.lm_train, full.lm_train)
    with pytest.raises(ValueError, match=r"n_labels must lie between 2 .* and 180"):
        split_validation(data, n_labels=181)
    with pytest.raises(ValueError, match="n_labels"):
        split_validation(data, n_labels=1)


def test_a_class_that_runs_out_leaves_its_share_to_the_others():
    uneven = from_frame(
        pd.DataFrame({"t": [f"t{n}" for n in range(110)], "l": ["a"] * 100 + ["b"] * 10}), text="t", label="l"
    )
    train = split_validation(uneven, n_labels=50).train
    assert len(train) == 50 and (uneven.df["label"].to_numpy()[train] == "b").sum() == 9


def test_the_validation_of_the_language_model_is_capped_and_the_rest_stays_unread(data, monkeypatch):
    monkeypatch.setattr("ulmfit_fastai.texts.splits.LM_VALID_MOST", 15)
    splits = split_validation(data)
    assert len(splits.lm_valid) == 15 and set(splits.lm_valid) <= set(splits.valid)
    assert not set(splits.lm_train) & set(splits.valid)


def test_splits_refuse_what_makes_no_sense(data):
    with pytest.raises(ValueError, match="protocol must be one of clean, tutorial; found 'dirty'"):
        split_validation(data, protocol="dirty")
    with pytest.raises(ValueError, match="fraction must lie between 0 and 0.5"):
        split_validation(data, fraction=0.9)
    tiny = from_frame(pd.DataFrame({"t": ["a", "b"], "l": ["x", "y"]}), text="t", label="l")
    with pytest.raises(ValueError, match="2 labelled .* at least 4"):
        split_validation(tiny)
    with pytest.raises(ValueError, match="no test rows"):
        split_validation(
            from_frame(pd.DataFrame({"t": list("abcd"), "l": list("xyxy")}), text="t", label="l"), protocol="tutorial"
        )
    assert len(split_validation(data, fraction=0).valid) == 0


# ---- the real set --------------------------------------------------------------------------------------------------


def test_the_real_imdb_is_whole_and_clean(test_data):
    real = load_imdb(test_data / "imdb" / "imdb.tgz")
    assert real.counts == {"train": 25000, "test": 25000, "unsup": 50000} and real.notes == ()
    sizes = real.df["text"].map(lambda text: len(text.encode())).groupby(real.df["split"]).sum()
    assert sizes.to_dict() == {"train": 33_132_823, "test": 32_350_685, "unsup": 66_506_794}
    splits = split_validation(real)
    assert [len(rows) for rows in (splits.train, splits.valid, splits.test, splits.lm_train, splits.lm_valid)] == [
        22500,
        2500,
        25000,
        70000,
        5000,
    ]


def test_the_real_archive_cut_off_is_refused(test_data, tmp_path):
    with open(test_data / "imdb" / "imdb.tgz", "rb") as whole:
        (tmp_path / "imdb.tgz").write_bytes(whole.read(3_000_000))
    with pytest.raises(ValueError, match="is damaged or was cut off"):
        load_imdb(tmp_path / "imdb.tgz")


@pytest.mark.slow
def test_the_real_set_with_one_review_less_is_refused_by_its_name(test_data, tmp_path):
    with tarfile.open(test_data / "imdb" / "imdb.tgz") as whole, tarfile.open(tmp_path / "imdb.tar", "w") as rest:
        for member in whole:
            if "/train/pos/417_" not in member.name:
                rest.addfile(member, whole.extractfile(member) if member.isfile() else None)
    with pytest.raises(ValueError, match=r"train/pos: expected 12500 reviews, found 12499 .*train/pos/417_\*"):
        load_imdb(tmp_path / "imdb.tar")


def test_something_that_is_no_frame_is_named():
    with pytest.raises(ValueError, match="expected a pandas DataFrame, found a list"):
        from_frame([1, 2], text="text", label="label")
