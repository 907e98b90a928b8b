"""The table over the runs of a multirun."""

from pathlib import Path

import pytest

from lstmopt.comparison import ranked, show


def trial(number, value, mode="min", status="completed", **metrics):
    words = [f"optimizer.lr={number}", "callbacks=[default,mixup]", "data.path=a[/x]b"]
    common = {"number": number, "value": value, "mode": mode, "status": status, "overrides": words}
    return common | {"monitor": "val/mse", "metrics": metrics, "train_seconds": 1.0}


@pytest.mark.parametrize(("mode", "order"), [("min", [3, 1, 0, 2, 4]), ("max", [1, 3, 0, 2, 4])])
def test_the_best_is_first_and_what_has_no_value_last(mode, order):
    values = [None, 0.5, float("nan"), -0.1, float("inf" if mode == "min" else "-inf")]
    assert [one["number"] for one in ranked([trial(k, value, mode) for k, value in enumerate(values)])] == order


def test_a_table_shows_what_was_typed_and_what_any_run_measured(capsys):
    """The first run failed before its test; brackets are no markup of rich."""
    trials = [trial(0, None, status="failed"), trial(1, 0.25, **{"test/mse": 0.123, "test/mse_raw": 9.0})]
    show(trials, trials[1], Path("/runs/[b]"))
    out = capsys.readouterr().out
    assert "test/mse" in out and "0.123" in out and "test/mse_raw" not in out
    assert out.count("callbacks=[default,mixup]") == 3 and out.count("data.path=a[/x]b") == 3
    assert f"best: {' '.join(trials[1]['overrides'])}\n" in out and "--logdir /runs/[b]" in out
