"""Texts: byte-order marks, and parts that hold nothing."""

import pytest
import torch

from lstmopt.data.penn_treebank import PennTreebank
from lstmopt.data.text_file import TextFile
from lstmopt.errors import DataError

TEXT = "ab ba " * 60


def load(path, val_fraction=0.1, test_fraction=0.1, level="chars"):
    return TextFile(4, 0, str(path), level, 5, val_fraction, test_fraction).load()


@pytest.mark.parametrize("level", ["chars", "words"])
def test_a_byte_order_mark_is_no_text(level, tmp_path):
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    (tmp_path / "plain.txt").write_bytes(TEXT.encode())
    (marked, one), (plain, other) = (load(tmp_path / f"{name}.txt", level=level) for name in ("marked", "plain"))
    assert marked == plain and marked.class_names[-1] == "<unk>" and "\ufeff" not in "".join(marked.class_names)
    assert all(torch.equal(one[part].tokens, other[part].tokens) for part in other)


def test_a_byte_order_mark_is_no_word_of_the_penn_treebank(tmp_path):
    (tmp_path / "ptb").mkdir()
    for part in ("train", "valid", "test"):
        (tmp_path / "ptb" / f"ptb.{part}.txt").write_bytes(b"\xef\xbb\xbf the cat sat on the mat \n")
    spec, _ = PennTreebank(4, 0, str(tmp_path), 3).load()
    assert sorted(spec.class_names) == ["<eos>", "<unk>", "cat", "mat", "on", "sat", "the"]


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.8, 0.4), (0.1, 1.0)])
def test_fractions_that_leave_nothing_are_named(fractions, tmp_path):
    (tmp_path / "t.txt").write_text(TEXT)
    with pytest.raises(DataError) as caught:
        load(tmp_path / "t.txt", *fractions)
    assert f"data.val_fraction={fractions[0]} and data.test_fraction={fractions[1]} leave" in caught.value.problem
    assert "nothing to train on" in caught.value.problem and "data.val_fraction=0.05" in caught.value.hint


def test_a_text_without_validation_is_told(tmp_path):
    (tmp_path / "t.txt").write_text(TEXT)
    with pytest.raises(DataError) as caught:
        load(tmp_path / "t.txt", 0.0)
    assert "data.val_fraction=0" in caught.value.problem and caught.value.hint == "type data.val_fraction=0.05"
    load(tmp_path / "t.txt", 0.05)
