"""The simulated rates are those of a real training; found for every schedule option there is."""

import sys
from itertools import count
from pathlib import Path

import pytest
import torch
from conftest import run_program
from hydra import compose, initialize_config_dir

from lstmopt import simulate as program
from lstmopt.build import make
from lstmopt.conf_dir import conf_dir
from lstmopt.models.lstm import LSTM
from lstmopt.simulate import simulate

sys.path.insert(0, str(Path(__file__).parent / "callbacks"))
from foreign import STEPS_PER_EPOCH, Foreign, fit  # noqa: E402

OPTIMIZERS = sorted(file.stem for file in Path(conf_dir(), "optimizer").glob("*.yaml"))
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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rate_is_that_of_a_models_hidden_matrices(name):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [f"optimizer={name}", "trainer.max_epochs=1"])
    model = LSTM(input_size=1, hidden_size=4)
    (hidden,) = (parameter for path, parameter in model.named_parameters() if path.endswith("weight_hh_l0"))
    groups = make(cfg.optimizer)(list(model.named_parameters())).param_groups
    (rate,) = (group["lr"] for group in groups if any(parameter is hidden for parameter in group["params"]))
    assert simulate(cfg, 1, [1.0])["lr"] == [rate] and rate == cfg.optimizer.get("lr", rate)


class Validated(Foreign):
    """Its losses are those of one validation after the other, wherever they fall."""

    def __init__(self, make_optimizer, losses):
        super().__init__(make_optimizer)
        self.losses, self.validations = losses, count()

    def training_step(self, batch, batch_idx):
        self.log("train/loss", 1.0, on_step=False, on_epoch=True, batch_size=1)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        if batch_idx == 0:
            number = next(self.validations)
            self.log("val/loss", torch.tensor(self.losses[min(number, len(self.losses) - 1)]), batch_size=1)


@pytest.mark.parametrize(
    "validation",
    [
        {"check_val_every_n_epoch": 2},
        {"check_val_every_n_epoch": 3, "val_check_interval": 2},
        {"val_check_interval": 2},
        {"val_check_interval": 0.5},
        {"val_check_interval": 0.01},
        {"val_check_interval": 7, "check_val_every_n_epoch": None},
        {"val_check_interval": 2, "accumulate_grad_batches": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("schedule", ["reduce_on_plateau", "keras_plateau", "warmup_plateau"])
def test_a_plateau_waits_for_the_validations_of_a_real_training(schedule, validation, tmp_path):
    words = [f"trainer.{key}={'null' if value is None else value}" for key, value in validation.items()]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [f"lr_scheduler={schedule}", "trainer.max_epochs=12", *FASTER[schedule], *words])
    module = Validated(make(cfg.optimizer), LOSSES)
    fit(tmp_path, make(cfg.callbacks.lr_schedule), module=module, epochs=12, num_sanity_val_steps=0, **validation)
    batches = validation.get("accumulate_grad_batches", 1)
    found = simulate(cfg, STEPS_PER_EPOCH // batches, LOSSES)
    assert found["lr"] == pytest.approx(module.lrs[batches - 1 :: batches], rel=1e-9)
    assert len(set(found["lr"])) > 1


@pytest.mark.parametrize("every", [1, 2])
def test_a_plateau_of_the_training_loss(every, tmp_path):
    words = ["lr_scheduler=reduce_on_plateau", "callbacks.lr_schedule.patience=1", "trainer.max_epochs=12"]
    words += ["callbacks.lr_schedule.monitor=train/loss", f"trainer.check_val_every_n_epoch={every}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", words)
    module, options = Validated(make(cfg.optimizer), [0.5]), {"check_val_every_n_epoch": every}
    fit(tmp_path, make(cfg.callbacks.lr_schedule), module=module, epochs=12, num_sanity_val_steps=0, **options)
    assert simulate(cfg, STEPS_PER_EPOCH, [1.0])["lr"] == pytest.approx(module.lrs, rel=1e-9)
    assert len(set(module.lrs)) > 1


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
        (["--out", "/proc/a.png"], "--out FOLDER/FILE.png"),
        (["--out", "a.xyz"], "--out FILE.png"),
        (["--out", "a"], "--out FILE.png"),
        (["--steps-per-epoch", 0], "--steps-per-epoch 100"),
        (["--config-dir", "/nowhere", "optimizer=mine"], "--config-dir FOLDER"),
        (["lr_scheduler=reduce_on_plateau", "trainer.val_check_interval=101"], "--steps-per-epoch 101"),
        (["lr_scheduler=reduce_on_plateau", "trainer.val_check_interval=00:00:01:00"], "a number of batches"),
    ],
)
def test_mistakes_end_with_code_2(wrong, right, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *wrong)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert right in told and len(told.splitlines()) == 2
    assert not list(tmp_path.iterdir())


def test_a_mistake_beside_an_option_of_the_programs_own(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--steps-per-epoch", 50, "lr_scheduler=onecycle", "--losses", "1,2")
    assert len(capsys.readouterr().err.splitlines()) == 2  # 50 is no override


def test_a_picture_that_cannot_be_written_at_last(monkeypatch, capsys, tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--out", tmp_path / "a.png")
    assert ended.value.code == 2 and "cannot write" in capsys.readouterr().err


def option(folder, content, name="mine"):
    """A folder with an optimizer of the user's own."""
    (folder / "optimizer").mkdir(parents=True)
    (folder / "optimizer" / f"{name}.yaml").write_text(content)


SGD = "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.017\n"


@pytest.mark.parametrize("place", [["--config-dir", "{}"], ["--config-dir={}"], ["hydra.searchpath=[file://{}]"]])
def test_options_of_ones_own(place, tmp_path):
    folder = tmp_path / ("my" if "searchpath" in place[0] else "it's, o(1)")
    option(folder, SGD)
    words = [word.format(folder) for word in place]
    done = run_program("optimizer=mine", *words, "trainer.max_epochs=2", cwd=tmp_path, command="lstmopt.simulate")
    assert done.returncode == 0 and done.stdout.startswith("first 0.017, "), done.stderr


MKDIR = "+callbacks.lr_schedule={_target_:os.mkdir,path:canary}"


@pytest.mark.parametrize("words", [[MKDIR], ["--config-dir", "my"], ["hydra.searchpath=[file://{}]"]], ids=str)
def test_nothing_of_others_is_called(words, tmp_path):
    option(tmp_path / "my", "_target_: os.mkdir\npath: canary\n")
    words = [word.format(tmp_path / "my") if "{}" in word else word for word in words]
    words += [] if MKDIR in words else ["optimizer=mine"]
    done = run_program(*words, cwd=tmp_path, command="lstmopt.simulate")
    assert done.returncode == 2 and "option files" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 2 and [path.name for path in tmp_path.iterdir()] == ["my"]


def test_plugins_are_allowed_where_they_are_typed(tmp_path, monkeypatch):
    (tmp_path / "ours.py").write_text("from torch.optim import SGD\n\n\nclass Ours(SGD):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    option(tmp_path / "my", SGD.replace("torch.optim.SGD", "ours.Ours"))
    words = ["--config-dir", "my", "optimizer=mine", "trainer.max_epochs=2"]
    done = run_program(*words, cwd=tmp_path, command="lstmopt.simulate")
    assert done.returncode == 2 and "plugins.allow=[ours]" in done.stderr
    done = run_program(*words, "plugins.allow=[ours]", cwd=tmp_path, command="lstmopt.simulate")
    assert done.returncode == 0 and done.stdout.startswith("first 0.017, "), done.stderr


def test_an_option_file_that_would_not_be_read(tmp_path):
    option(tmp_path / "my", SGD, "adam")
    done = run_program("--config-dir", "my", "optimizer=adam", cwd=tmp_path, command="lstmopt.simulate")
    assert done.returncode == 2 and "my_adam.yaml" in done.stderr


def test_a_limit_of_steps_is_the_length(monkeypatch, tmp_path, capsys):
    run(monkeypatch, "lr_scheduler=one_cycle", "trainer.max_steps=70", "--out", tmp_path / "cycle.png")
    assert "last 3.6e-08; 70 steps" in capsys.readouterr().out
