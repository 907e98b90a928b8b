"""What is read out of run folders, and the facts that follow from it."""

import math

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from lstmopt.compare import html
from lstmopt.compare.arms import Arm, Run, read_curve
from lstmopt.compare.report import compared, rows, show


def run(value, seconds=10.0, curve=(4.0, 2.0, 1.0)):
    steps = np.arange(1, len(curve) + 1, dtype=float) * 10
    return Run(value, seconds, 100.0, steps, np.array(curve, dtype=float), 10 * len(curve), {})


def test_seconds_to_a_value():
    one = run(1.0, seconds=30.0)
    assert one.seconds_to(2.0, "min") == 20.0 and one.seconds_to(3.0, "min") == 20.0
    assert one.seconds_to(0.5, "min") == math.inf
    assert run(4.0, 30.0, curve=(1.0, 2.0, 4.0)).seconds_to(2.0, "max") == 20.0
    assert math.isnan(Run(1.0, 1.0, 1.0, np.empty(0), np.empty(0), 3, {}).seconds_to(1.0, "min"))


def test_the_curve_of_a_run_that_was_resumed(tmp_path):
    for values in ([(10, 3.0), (20, 2.5)], [(20, 2.0), (30, 1.0)]):
        with SummaryWriter(str(tmp_path)) as writer:
            for step, value in values:
                writer.add_scalar("val/loss", value, step)
    steps, curve = read_curve(tmp_path, "val/loss")
    assert steps.tolist() == [10, 20, 30] and curve.tolist() == [3.0, 2.0, 1.0]
    assert len(read_curve(tmp_path, "val/other")[0]) == 0
    assert len(read_curve(tmp_path / "nothing", "val/loss")[0]) == 0


def test_facts_of_the_arms():
    base = Arm("base", "completed", "", {k: run(1.0 + k / 100) for k in range(8)})
    better = {k: run(0.8 + k / 90, seconds=20.0, curve=(1.0, 0.9, 0.8)) for k in range(8)}
    worse = {k: run(1.5 + k / 80) for k in range(8)}
    arms = [base, Arm("a", "completed", "", better), Arm("b", "pruned", "given up after 8 seeds", worse)]
    found = compared([*arms, Arm("c", "failed", "diverged")], "min")
    assert [one["verdict"] for one in found] == ["base", "better", "worse", "failed"]
    assert found[1]["time"] == 2.0 and found[1]["time_to_base"] == pytest.approx(20 / 3 / 10)
    assert found[1]["p"] == pytest.approx(2 / 2**8) and found[1]["p_holm"] == pytest.approx(2 * 2 / 2**8)
    assert found[2]["time_to_base"] == 1.0 and found[2]["seeds"] == 8
    cells = rows({"arms": found})
    assert cells[1][2].startswith("-") and cells[2][2].startswith("+") and "given up" in cells[2][1]
    assert {len(row) for row in cells} == {9}


def test_a_base_whose_mean_is_zero_has_no_parts():
    base = Arm("base", "completed", "", {k: run(0.0, curve=(0.0,)) for k in range(8)})
    variant = Arm("a", "completed", "", {k: run(0.25 + k / 100, curve=(0.2, 0.25)) for k in range(8)})
    same = Arm("b", "completed", "", {k: run((k % 2 - 0.5) / 10, curve=(0.0,)) for k in range(8)})
    found = {"metric": "val/accuracy", "arms": compared([base, variant, same], "max")}
    cells = rows(found)
    assert cells[1][1] == "better" and cells[1][2] == "+0.285" and cells[1][3].startswith("+0.2")
    assert cells[2][1].startswith("no difference shown (of 0.") and "%" not in "".join(cells[2])
    assert html.pictures(found, [base, variant, same])["effects"].axes[0].get_xlabel().endswith("val/accuracy")


def test_a_seed_that_the_base_lacks_does_not_count():
    base = Arm("base", "completed", "", {k: run(1.0 + k / 100) for k in (0, 2, 3)})
    variant = Arm("a", "completed", "", {k: run(9.0 if k == 1 else 0.9 + k / 100) for k in range(4)})
    found = compared([base, variant], "min")[1]
    assert found["effect"] == pytest.approx(-0.1) and found["verdict"] == "too few seeds" and found["seeds_needed"] == 6


def test_half_of_the_seeds_are_enough_for_a_time_to_the_base():
    base = Arm("base", "completed", "", {k: run(1.0) for k in range(4)})
    late, never = run(1.0, seconds=20.0), run(2.0, curve=(4.0, 3.0, 2.0))
    half = Arm("a", "completed", "", {0: late, 1: never, 2: never, 3: late})
    fewer = Arm("b", "completed", "", {0: late, 1: never, 2: never, 3: never})
    found = compared([base, half, fewer], "min")
    assert found[1]["time_to_base"] == 2.0 and found[1]["reached_base"] == "2 of 4"
    assert found[2]["time_to_base"] is None and rows({"arms": found})[2][6] == "never (1 of 4)"


def test_the_table_shows_brackets_as_they_were_typed(capsys, tmp_path):
    arms = [Arm(label, "completed", "", {0: run(1.0), 1: run(1.1)}) for label in ("base", "a=[b,c]")]
    found = {"metric": "val/loss", "mode": "min", "base": ["data.path=d[/x]e"], "arms": compared(arms, "min")}
    show(found, rows(found), tmp_path / "[b]")
    out = capsys.readouterr().out.replace("\n", "")
    assert "a=[b,c]" in out and "data.path=d[/x]e" in out and str(tmp_path / "[b]") in out
