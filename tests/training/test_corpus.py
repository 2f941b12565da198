"""The text of stage 1: what is odd about a corpus is said before anything is learnt from it."""

from __future__ import annotations

import pytest

from ulmfit_fastai.training.corpus import general_text

CHINESE = "\u8fd9\u90e8\u7535\u5f71\u975e\u5e38\u597d\u770b"


@pytest.mark.parametrize(("text", "lang", "said"), [(CHINESE, "en", "give lang='zh'"), (CHINESE, "zh", ""),
                                                    ("A film of the year", "en", "")])
def test_a_language_without_blanks_under_rules_of_another_is_said(text, lang, said, caplog, tmp_path):
    general_text([text] * 20, max_vocab=100, min_freq=1, cache=tmp_path, progress=False, lang=lang)
    assert said in caplog.text and bool(caplog.text) is bool(said)
