"""The program as users run it: what a run leaves, every technique, sweeps, resume, signals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lstmopt.conf_dir import conf_dir

SHORT = ["trainer.max_epochs=2", "data.input_length=52", "data.horizon=4", "model.hidden_size=8"]


def results(folder) -> dict:
    return json.loads((Path(folder) / "results.json").read_text())


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def plain(value) -> bool:
    if isinstance(value, dict):
        return all(plain(k) and plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(plain, value))
    return value is None or type(value) in (str, int, float, bool) or isinstance(value, torch.Tensor)


def test_a_run_leaves_what_the_contract_says(program):
    done = program(*SHORT, "hydra.run.dir=run", "callbacks.picture.every_n_epochs=1", "trainer.log_every_n_steps=1")
    assert done.returncode == 0, done.stderr
    run = program.folder / "run"
    assert {".hydra", "checkpoints", "results.json", "picture.png"} <= {path.name for path in run.iterdir()}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    found = results(run)
    assert found["status"] == "completed" and found["monitor"] == "val/loss" and found["epochs"] == 2
    assert found["best"] == pytest.approx(min(value for _, value in scalars(run)["val/loss"]), rel=1e-5)
    assert set(found["baseline"]["all"]) == {"seasonal_naive", "naive_drift"}  # 52 rows are a season, and no step more
    assert found["baseline"]["name"] in found["baseline"]["all"]
    assert found["baseline"]["test/mse"] == min(one["test/mse"] for one in found["baseline"]["all"].values())
    names = ("loss", "mse", "mae", "mse_raw", "mae_raw")
    assert {f"{part}/{name}" for part in ("val", "test") for name in names} | {"train/loss"} <= set(found["metrics"])
    for key in (
        "steps",
        "parameters",
        "train_seconds",
        "seconds_to_first_step",
        "samples_per_second",
        "peak_memory_mb",
    ):
        assert found[key] > 0, key
    assert found["seed"] == 0 and found["checkpoint"] == "checkpoints/best.ckpt"
    assert set(SHORT) <= set(found["overrides"]) and "torch" in found["versions"]
    curves = scalars(run)
    assert {"train/loss", "val/loss", "lr-ScheduleFreeAdamW", "grad_norm/before", "grad_norm/after"} <= set(curves)
    assert len(curves["train/loss"]) == found["steps"] and len(curves["val/loss"]) == 2
    assert all(after <= 1.0001 for _, after in curves["grad_norm/after"])
    events = EventAccumulator(str(run)).Reload()
    assert {"val/picture", "test/picture"} <= set(events.Tags()["images"])
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 1  # the second, counted from 0
    assert plain(checkpoint["data_spec"]) and plain(checkpoint["callbacks"])
    assert "test/mse" in done.stdout
    assert "less error" in done.stdout or "more error" in done.stdout


MORE = [
    "model.return_sequences=true",
    "callbacks=none",
    "callbacks=[last_checkpoint,progress]",
    "data=mackey_glass data.length=400",
    "data=adding data.n_train=100 data.sequence_length=20",
    "data=copy_memory data.n_train=100 data.delay=5",
    "trainer.accumulate_grad_batches=3",
    "optimizer=rmsprop lr_scheduler=one_cycle gradient_clip=norm precision=bf16_mixed profiler=pytorch",
]


@pytest.mark.parametrize("options", MORE)
def test_more_of_what_can_be_typed(options, program):
    done = program("trainer=debug", "hydra.run.dir=run", *options.split())
    assert done.returncode == 0, done.stderr
    assert results(program.folder / "run")["status"] == "completed"


def test_multirun_compares_its_jobs(program):
    done = program("-m", "optimizer=adam,rmsprop,sgd", "seed=0,1", "trainer=debug", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    jobs = [program.folder / "sweep" / str(k) for k in range(6)]
    assert all((job / "results.json").is_file() for job in jobs)
    sweep = json.loads((program.folder / "sweep" / "sweep.json").read_text())
    assert [trial["number"] for trial in sweep["trials"]] == list(range(6))
    assert sweep["best"]["value"] == min(results(job)["best"] for job in jobs)
    assert "6 runs" in done.stdout and "optimizer=rmsprop seed=1" in done.stdout
    rows = set()
    for job in jobs:
        events = EventAccumulator(str(job)).Reload()
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        rows.add(content)
        assert b"optimizer" in content and b"seed" in content
    assert len(rows) == 6


def test_a_sweep_goes_on_past_a_job_that_is_refused(program):
    done = program("-m", "model.dropout=0.5,0.0", "trainer=debug", "hydra.sweep.dir=sweep")
    assert done.returncode == 2 and "model.num_layers=2" in done.stderr
    assert results(program.folder / "sweep" / "1")["status"] == "completed"


def test_last_is_last_and_best_is_best(program):
    """A learning rate so high that the metric worsens: last.ckpt is still the newest epoch."""
    done = program(*SHORT[1:], "hydra.run.dir=run", "optimizer=sgd", "optimizer.lr=5", "trainer.max_epochs=5")
    assert done.returncode == 0, done.stderr
    values = [value for _, value in scalars(program.folder / "run")["val/loss"]]
    epochs = {
        name: torch.load(program.folder / "run" / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    }
    per_epoch = epochs["last"] // len(values)
    assert epochs["best"] == (1 + values.index(min(values))) * per_epoch


@pytest.mark.parametrize("how", ["copied", "elsewhere"])
def test_the_best_epoch_comes_along_into_another_folder(how, program):
    """The second epoch is the best of four, and the folder another one after it."""
    options = [*SHORT[1:], "optimizer=sgd", "optimizer.lr=5"]
    assert program(*options, "hydra.run.dir=whole", "trainer.max_epochs=4").returncode == 0
    assert program(*options, "hydra.run.dir=a", "trainer.max_epochs=2").returncode == 0
    words = ["hydra.run.dir=b", "trainer.max_epochs=4"]
    if how == "copied":
        shutil.copytree(program.folder / "a", program.folder / "b")
    else:
        words.append("resume=a/checkpoints/last.ckpt")
    done = program(*options, *words)
    assert done.returncode == 0 and "going on from" in done.stdout, done.stderr
    found, whole = results(program.folder / "b"), results(program.folder / "whole")
    assert found["best"] == whole["best"] and found["metrics"]["test/mse"] == whole["metrics"]["test/mse"]
    steps = [
        torch.load(program.folder / name / "checkpoints" / "best.ckpt", weights_only=True)["global_step"]
        for name in ("b", "whole")
    ]
    assert steps == [whole["steps"] // 2] * 2


def test_a_run_that_was_stopped_in_its_first_epoch_stays_so(program):
    options = [*SHORT, "hydra.run.dir=run", "callbacks.early_stopping.stopping_threshold=1e9"]
    for _ in range(2):
        done = program(*options)
        assert done.returncode == 0 and "epoch 2/" not in done.stdout, done.stderr
        assert results(program.folder / "run")["epochs"] == 1


@pytest.mark.parametrize(
    "extra", [[], ["lr_scheduler=one_cycle"], ["lr_scheduler=reduce_on_plateau"], ["optimizer=rmsprop"]], ids="".join
)
def test_resume_equals_never_having_stopped(extra, program):
    options = [*SHORT[1:], *extra, "data.batch_size=128"]
    assert program(*options, "trainer.max_epochs=4", "hydra.run.dir=whole").returncode == 0
    half = ["trainer.max_epochs=4", "trainer.max_steps=-1", "hydra.run.dir=half"]
    kill = _start(program.folder, *options, *half)
    _kill_after_epochs(kill, 2)
    done = program(*options, *half)
    assert done.returncode == 0 and "going on from" in done.stdout, done.stderr
    whole, resumed = (
        torch.load(program.folder / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "half")
    )
    assert whole["global_step"] == resumed["global_step"]
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    curves = [scalars(program.folder / name)["val/loss"] for name in ("whole", "half")]
    assert [step for step, _ in curves[0]] == [step for step, _ in curves[1]]
    assert [value for _, value in curves[0]] == pytest.approx([value for _, value in curves[1]], rel=1e-6)


def _start(folder, *arguments, environment=None):
    command = [sys.executable, "-c", "from lstmopt.train import main; main()", *arguments]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def _kill_after_epochs(process, epochs):
    for line in process.stdout:
        if line.startswith(f"epoch {epochs}/"):
            break
    process.kill()
    process.wait()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_so(signum, code, program):
    options = [*SHORT[1:], "hydra.run.dir=run", "trainer.max_epochs=4000", "callbacks.early_stopping.patience=9999"]
    process = _start(program.folder, *options)
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    time.sleep(0.3)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    found = results(program.folder / "run")
    assert found["status"] == "stopped"
    step = torch.load(program.folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert step == found["steps"] > 0
    assert not list((program.folder / "run" / "checkpoints").glob("*.part"))


def test_a_finished_run_is_not_trained_again(program):
    assert program(*SHORT, "hydra.run.dir=run").returncode == 0
    before = (program.folder / "run" / "results.json").read_text()
    done = program(*SHORT, "hydra.run.dir=run")
    assert done.returncode == 0 and "is finished" in done.stdout
    assert (program.folder / "run" / "results.json").read_text() == before
    longer = [option for option in SHORT if "max_epochs" not in option] + ["trainer.max_epochs=3"]
    assert program(*longer, "hydra.run.dir=run").returncode == 0
    assert results(program.folder / "run")["epochs"] == 3


def test_the_config_is_composed_once(program, monkeypatch):
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    composed, count = ConfigLoaderImpl.load_configuration, program.folder / "count"

    def counted(self, *arguments, **options):
        with open(count, "a") as file:
            file.write(".")
        return composed(self, *arguments, **options)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    assert program(*SHORT, "hydra.run.dir=run").returncode == 0
    assert count.read_text() == "."
    shipped = [file.read_text() for file in Path(conf_dir()).glob("**/*.yaml")]
    assert len(shipped) > 100 and not any(re.search(r"^ *mode: *(RUN|MULTIRUN)", text, re.M) for text in shipped)


@pytest.mark.parametrize(
    "words", [["optimizer=mine", "--config-dir", "my", "seed=3"], ["seed=3", "-cd", "my", "optimizer=mine"]]
)
def test_flags_may_stand_between_overrides(words, program):
    (program.folder / "my" / "optimizer").mkdir(parents=True)
    (program.folder / "my" / "optimizer" / "mine.yaml").write_text(
        "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.1\n"
    )
    done = program(*words, "--cfg", "job", "trainer.max_epochs=7")
    assert done.returncode == 0, done.stderr
    shown = OmegaConf.create(done.stdout)
    assert (shown.optimizer._target_, shown.seed, shown.trainer.max_epochs) == ("torch.optim.SGD", 3, 7)


def test_a_folder_of_options_may_have_any_name(program):
    own = program.folder / "it's, o(1)" / "optimizer"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("_target_: torch.optim.SGD\n_partial_: true\nlr: 0.1\n")
    done = program("--config-dir", "it's, o(1)", "optimizer=mine", "trainer=debug")
    assert done.returncode == 0, done.stderr
    done = program("--config-dir=it's, o(1)", "optimizer=sdg")
    assert done.returncode == 2 and "type optimizer=sgd" in done.stderr and "Traceback" not in done.stderr


def test_without_pictures_there_is_none(program):
    done = program("trainer.max_epochs=1", "callbacks.picture=null", "hydra.run.dir=run")
    assert done.returncode == 0 and "picture.png" not in done.stdout
    assert (program.folder / "run" / "results.json").is_file() and not list(program.folder.glob("**/*.png"))
    assert "test/picture" not in EventAccumulator(str(program.folder / "run")).Reload().Tags()["images"]
