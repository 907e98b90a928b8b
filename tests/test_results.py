"""`results.json` is JSON for any reader, and comes back as what was written."""

import json
import math

import pytest

from lstmopt import results


def strict(path):
    """As a reader of plain JSON takes it, which knows no NaN and no Infinity."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(path.read_text(), parse_constant=refuse)


def test_numbers_that_json_lacks(tmp_path):
    written = {"best": math.inf, "metrics": {"a": -math.inf, "b": 0.5}, "overrides": ["x=inf"], "values": [math.nan, 1]}
    results.write(tmp_path, written)
    assert strict(tmp_path / "results.json") == {
        "best": "inf",
        "metrics": {"a": "-inf", "b": 0.5},
        "overrides": ["x=inf"],
        "values": ["nan", 1],
    }
    assert repr(results.read(tmp_path)) == repr(written)


@pytest.mark.parametrize("content", [b"", b'{"status": "compl', b"\0" * 100, b"\xff\xfe"])
def test_a_damaged_file_is_as_none(content, tmp_path):
    assert results.read(tmp_path) is None and results.finished(tmp_path) is None
    (tmp_path / "results.json").write_bytes(content)
    assert results.read(tmp_path) is None and results.finished(tmp_path) is None
