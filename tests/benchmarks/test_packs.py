"""A pack brings ids, labels and splits to another machine, whole or not at all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.gpu.packs import read_pack, smaller_vocab, write_pack
from ulmfit_fastai.texts.dataset import from_frame
from ulmfit_fastai.texts.splits import split_validation
from ulmfit_fastai.tokens.store import TokenStore


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    frame = pd.DataFrame({
        "text": [" ".join(rng.choice(words, rng.integers(3, 40))) for _ in range(50)],
        "label": ["NA" if i % 2 else "yes, \"so\"" for i in range(50)],
    })
    dataset = from_frame(frame, text="text", label="label", unlabelled=["w1 w2 w3 w4"], test=0.2, name="small")
    store = TokenStore.make(dataset.df["text"].tolist(), cache=tmp_path_factory.mktemp("cache"), progress=False)
    ids = store.numericalize(store.vocab(max_vocab=48, min_freq=1))
    folder = write_pack(tmp_path_factory.mktemp("pack"), ids, dataset=dataset, part_tokens=100, corpus="toy")
    return dataset, ids, folder


def test_a_pack_gives_back_the_ids_and_the_rows(packed):
    dataset, ids, folder = packed
    back, rows, about = read_pack(folder)
    assert len(about["parts"]) > 3 and about["corpus"] == "toy"
    assert np.array_equal(back.ids, ids.ids) and np.array_equal(back.offsets, ids.offsets) and back.vocab == ids.vocab
    assert rows.fingerprint == dataset.fingerprint and rows.classes == dataset.classes
    for column in ("id", "label", "split"):
        assert rows.df[column].tolist() == dataset.df[column].tolist()


def test_the_splits_are_those_of_the_texts_left_behind(packed):
    dataset, _, folder = packed
    ours, theirs = split_validation(read_pack(folder)[1], seed=3), split_validation(dataset, seed=3)
    for name in ("train", "valid", "test", "lm_train", "lm_valid"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name))


def test_a_pack_without_a_part_or_with_a_broken_one_is_refused(packed, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(packed[2], folder)
    part = folder / "ids.001.xz"
    part.write_bytes(part.read_bytes()[:-8])
    with pytest.raises(ValueError, match="ids.001.xz: expected a whole xz file"):
        read_pack(folder)
    part.unlink()
    with pytest.raises(ValueError, match="missing are ids.001.xz"):
        read_pack(folder)
    (folder / "pack.json").unlink()
    with pytest.raises(ValueError, match="expected a pack"):
        read_pack(folder)


def test_a_smaller_vocabulary_keeps_the_frequent_words(packed):
    _, ids, _ = packed
    small = smaller_vocab(ids, 20)
    assert small.vocab == ids.vocab[:16]
    kept = np.asarray(ids.ids) < 16
    assert np.array_equal(small.ids[kept], np.asarray(ids.ids)[kept]) and not small.ids[~kept].any()
    assert smaller_vocab(ids, 10_000) is ids
