"""The simulated rates are those of a real training; found for every schedule option there is."""

import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from lstmopt import simulate as program
from lstmopt.build import make
from lstmopt.conf_dir import conf_dir
from lstmopt.simulate import simulate

sys.path.insert(0, str(Path(__file__).parent / "callbacks"))
from foreign import STEPS_PER_EPOCH, Foreign, fit  # noqa: E402

SCHEDULES = sorted(file.stem for file in Path(conf_dir(), "lr_scheduler").glob("*.yaml"))
LOSSES = [1.0, 0.9, 0.95, 0.94, 0.93, 0.92, 0.5, 0.6, 0.6, 0.6]
FASTER = {
    "cyclic": ["callbacks.lr_schedule.step_size_up=7", "callbacks.lr_schedule.cycle_momentum=true"],
    "reduce_on_plateau": ["callbacks.lr_schedule.patience=1"],
    "keras_plateau": ["callbacks.lr_schedule.patience=2"],
    "step": ["callbacks.lr_schedule.step_size=3"],
    "warmup_cosine": ["callbacks.lr_schedule.warmup_steps=8"],
    "warmup_plateau": ["callbacks.lr_schedule.warmup_steps=8", "callbacks.lr_schedule.patience=1"],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_and_momenta_are_those_of_a_real_training(schedule, tmp_path):
    overrides = [f"lr_scheduler={schedule}", "trainer.max_epochs=10", *FASTER.get(schedule, [])]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", overrides)
    found = simulate(cfg, STEPS_PER_EPOCH, LOSSES)
    module = Foreign(make(cfg.optimizer), LOSSES)
    node = cfg.callbacks.get("lr_schedule")
    fit(tmp_path, *([make(node)] if node else []), module=module, epochs=10)
    assert found["lr"] == pytest.approx(module.lrs, rel=1e-9)
    assert found["momentum"] == pytest.approx(module.momenta, rel=1e-9)
    assert len(set(found["lr"])) > (1 if schedule != "none" else 0)


def test_schedules_are_found():
    assert len(SCHEDULES) >= 10


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["lstmopt-simulate", *map(str, arguments)])
    program.main()


def test_program_draws(monkeypatch, tmp_path, capsys):
    out = tmp_path / "cycle.png"
    run(monkeypatch, "lr_scheduler=one_cycle", "trainer.max_epochs=4", "--steps-per-epoch", 50, "--out", out)
    assert out.read_bytes()[:4] == b"\x89PNG"
    assert "first 0.00036, highest 0.009 at step 59" in capsys.readouterr().out  # 30 % of 200 steps


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (["lr_scheduler=onecycle"], "one_cycle"),
        (["lr_scheduler=one_cycle", "callbacks.lr_schedule.pct_start=2"], "(0, 1)"),
        (["--out", "/nowhere/at/all.png"], "--out"),
    ],
)
def test_mistakes_end_with_code_2(wrong, right, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *wrong)
    assert ended.value.code == 2
    assert right in capsys.readouterr().err


def test_a_limit_of_steps_is_the_length(monkeypatch, tmp_path, capsys):
    run(monkeypatch, "lr_scheduler=one_cycle", "trainer.max_steps=70", "--out", tmp_path / "cycle.png")
    assert "last 3.6e-08; 70 steps" in capsys.readouterr().out
