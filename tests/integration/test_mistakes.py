"""Mistakes of a new user: exit code 2, at most five lines, what to type instead, and nothing left behind."""

import json
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from lstmopt.mistakes import explain

ROWS = "".join(f"{k},{k % 7}\n" for k in range(300))
FILES = {
    "good.csv": "a,b\n" + ROWS,
    "text.csv": "a,b\n1,2\n3,x\n",
    "empty.csv": "",
    "short.csv": "a,b\n1,2\n3,4\n",
    "note.txt": "hello\n",
}

# what is typed: words that the answer must hold
MISTAKES = {
    "optimzer=adam": ["type optimizer=adam"],
    "optimizer=adamm": ["type optimizer=adam", "rmsprop"],
    "lr_schedular=cosine": ["type lr_scheduler=cosine"],
    "optimizer.lr=1e-3,1e-2": ["is more than one value", "-m", "optimizer.lr=[1e-3,1e-2]"],
    "optimizer=adam,sgd": ["is more than one value", "-m for a run with each"],
    "experiment=null": ["experiment=null does not exist", "none"],
    "optimizer.learning_rate=0.1": ["type optimizer.lr=0.1"],
    "lr=0.1": ["type optimizer.lr=0.1"],
    "batch_size=32": ["type data.batch_size=32"],
    "tune.lr=0.1": ["tune.lr=0.1", "true or false"],
    "tune.batch_size_mode=biggest": ["fastest or largest or loss"],
    "tune.lr=true optimizer.lr=0.1": ["optimizer.lr is given", "leave one of the two out"],
    "tune.lr=true optimizer=prodigy": ["no rate to look for", "type tune.lr=false"],
    "optimizer.lr": ["cannot read optimizer.lr", "optimizer.lr=..."],
    "optimizer.lr=fast": ["optimizer.lr=fast", "a number in (0, inf)"],
    "optimizer.lr=1e-3abc": ["optimizer.lr", "a number"],
    "optimizer.lr=-1": ["out of range", "(0, inf)"],
    "optimizer.betas=0.9": ["a list like [a,b]"],
    "optimizer=adam optimizer.betas=[0.9]": ["optimizer.betas=[0.9] has the wrong type", "[a,b] in [0, 1)"],
    "optimizer=adam optimizer.betas=[0.9,0.99,0.999]": ["optimizer.betas=[0.9, 0.99, 0.999]", "[a,b] in [0, 1)"],
    "optimizer=soap optimizer.betas=[0.9,0.99,0.999]": ["optimizer.betas=[0.9, 0.99, 0.999]", "[a,b] in [0, 1)"],
    "optimizer=adagrad optimizer.lr_decay=-1": ["optimizer.lr_decay=-1 is out of range", "[0, inf)"],
    "optimizer=sgd optimizer.dampening=5": ["optimizer.dampening=5 is out of range", "[0, 1]"],
    "optimizer=asgd optimizer.t0=-1": ["optimizer.t0=-1 is out of range", "[0, inf)"],
    "optimizer=lbfgs gradient_clip=none optimizer.line_search_fn=foo": ["optimizer.line_search_fn=strong_wolfe|null"],
    "seed=4294967296": ["seed=4294967296 is out of range", "[0, 4294967295]"],
    "lr_scheduler=step callbacks.lr_schedule.step_size=0": ["step_size=0 is out of range", "[1, inf)"],
    "lr_scheduler=cyclic callbacks.lr_schedule.step_size_up=0": ["step_size_up=0 is out of range", "[1, inf)"],
    "lr_scheduler=one_cycle callbacks.lr_schedule.div_factor=0": [".div_factor=0 is out of range", "(0, inf)"],
    "lr_scheduler=one_cycle callbacks.lr_schedule.final_div_factor=0": ["final_div_factor=0", "(0, inf)"],
    "lr_scheduler=reduce_on_plateau callbacks.lr_schedule.threshold=-5": ["threshold=-5", "[0, inf)"],
    "loader.part_of_memory=-1": ["loader.part_of_memory=-1 is out of range", "[0, 1]"],
    "precision=auto callbacks.precision.margin=-1": ["callbacks.precision.margin=-1 is out of range", "(0, inf)"],
    "callbacks.early_stopping.min_delta=nan": ["callbacks.early_stopping.min_delta=nan is out of range", "[0, inf)"],
    "callbacks.gradient_clip.norm_type=-1": ["callbacks.gradient_clip.norm_type=-1 is out of range", "(0, inf]"],
    "trainer.min_epochs=-4": ["trainer.min_epochs=-4 is out of range", "[0, inf)"],
    "data=adding data.sequence_length=1": ["data.sequence_length=1 is out of range", "[2, inf)"],
    "data=mackey_glass data.tau=0": ["data.tau=0 is out of range", "[0.1, inf)"],
    "data=mnist_rows data.features=5": ["data.features=5 is not one of its values", "28|49"],
    "+optimizer.momentm=0.9": ["momentm"],
    "trainer.max_epochs=-5": ["trainer.max_epochs=-5", "[1, inf)"],
    "trainer.max_epochs=null trainer.max_steps=30": ["trainer.max_steps and trainer.max_time", "trainer.max_epochs="],
    "trainer.overfit_batches=1": ["trainer.overfit_batches", "type trainer.limit_train_batches=1"],
    "trainer.limit_test_batches=0": ["nothing would be tested", "trainer.limit_test_batches=1.0"],
    "trainer.max_epochs=ten": ["a whole number"],
    "data.batch_size=0": ["[1, inf)"],
    "model.hidden_size=1.5": ["a whole number"],
    "model.dropout=1.5": ["[0, 1)"],
    "model.dropout=0.5": ["model.num_layers=2"],
    "model.num_layers=0": ["[1, inf)"],
    "model.layers=2": ["type model.num_layers=2"],
    "seed=abc": ["seed=abc", "a whole number"],
    "mode=maximum": ["min or max"],
    "mode=max": ["mode=min"],
    "monitor=val/acc": ["val/acc is not a metric", "val/loss"],
    "callbacks.early_stopping.monitor=val/foo": [
        "callbacks.early_stopping.monitor=val/foo is not a metric",
        "val/loss",
    ],
    "trainer.val_check_interval=0": ["trainer.val_check_interval=0 is out of range", "(0, inf)"],
    "task=tagging": ["type task=forecasting"],
    "precision=fp16_mixed": ["type precision=bf16_mixed"],
    "optimizer=sgd optimizer.momentum=0": ["optimizer.nesterov=false"],
    "optimizer=natural_gradient gradient_clip=norm": ["needs it unclipped", "gradient_clip=none"],
    "optimizer=newton_cg trainer.accumulate_grad_batches=2": ["accumulate_grad_batches=1"],
    "optimizer=newton_cg precision=bf16_mixed": ["digits", "precision=fp32"],
    "optimizer=kfac model=bilstm": ["one-directional", "model=lstm"],
    "optimizer=kfac optimizer.damping=0": ["out of range", "(0, inf)"],
    "callbacks.gradient_clip.max_norm=-1": ["(0, inf)"],
    "trainer.accelerator=gpu": ["no GPU", "trainer.accelerator=auto"],
    "data.root=x": ["no key data.root", "horizon"],
    "data=csv": ["data.path is not set", "data.target is not set"],
    "data=csv data.path=none.csv data.target=a": ["none.csv does not exist", "data.path="],
    "data=csv data.path=empty.csv data.target=a": ["empty.csv is empty"],
    "data=csv data.path=good.csv data.target=c": ["no column c", "data.target=a"],
    "data=csv data.path=text.csv data.target=a": ["column b", "'x' in line 3"],
    "data=csv data.path=short.csv data.target=a": ["too short", "needs 120", "data.input_length"],
    "data=csv data.path=good.csv data.target=a data.season=0": ["data.season=0 is out of range", "[1, inf)"],
    "data=csv data.path=good.csv data.target=a data.time_column=date": ["no column date"],
    "-m search=random data=csv data.path=none.csv data.target=a": ["none.csv does not exist", "path of a CSV file"],
    "-m search=tpe search.n_jobs=2 data=csv data.path=short.csv data.target=a": ["too short", "data.input_length"],
    "data=text data.path=none.txt": ["none.txt does not exist"],
    "data=text data.path=note.txt": ["too short", "data.sequence_length"],
    "data=ucr data.root=.": ["ItalyPowerDemand_TRAIN.ts", "timeseriesclassification.com", "data.root="],
    "data=npz data.path=note.txt": ["not an .npz file"],
    "hydra.run.dir=/dev/null/x": ["cannot write to /dev/null/x", "hydra.run.dir="],
    "resume=missing.ckpt": ["missing.ckpt", "resume=FOLDER/checkpoints/last.ckpt"],
    "resume=note.txt": ["note.txt is not a checkpoint", "resume=none"],
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_mistake(typed, program):
    for name, content in FILES.items():
        (program.folder / name).write_text(content)
    done = program(*typed.split())
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert 2 <= len(done.stderr.splitlines()) <= 5, done.stderr
    assert done.stdout == ""
    for words in MISTAKES[typed]:
        assert words in done.stderr
    assert sorted(path.name for path in program.folder.iterdir()) == sorted(FILES)


def test_all_mistakes_are_told_at_once(program):
    done = program("optimizer.lr=fast", "model.dropout=7", "trainer.max_epochs=0")
    assert done.returncode == 2
    assert all(key in done.stderr for key in ("optimizer.lr=fast", "model.dropout=7", "trainer.max_epochs=0"))
    done = program("optimzer=adam", "data.hrizon=3", "model=lstn")
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("optimizer=adam", "data.horizon=3", "model=lstm"))


def test_a_column_that_hydra_cannot_read_is_to_be_quoted(program):
    rows = "".join(f"{k},{k % 7}\n" for k in range(300))
    (program.folder / "s.csv").write_text("time,Sales (EUR)\n" + rows)
    done = program("data=csv", "data.path=s.csv", "data.target=Sales (EUR)")
    assert done.returncode == 2 and len(done.stderr.splitlines()) <= 5
    (typed,) = [line.partition("type ")[2] for line in done.stderr.splitlines() if "type " in line]
    assert typed == "'data.target=\"Sales (EUR)\"'"
    done = program("data=csv", "data.path=s.csv", *shlex.split(typed), "trainer=debug")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("Sales (EUR)", "Sales (EUR)"),
        ("it's (a)", "it's (a)"),
        ('5" (a)', '5" (a)'),
        ('a\\"b (c)', 'a\\"b (c)'),
        ("a (b)\\", "a (b)\\"),
        ("x{", "x{"),
        ("[Sales (EUR),b]", ["Sales (EUR)", "b"]),
    ],
)
def test_what_is_told_to_be_typed_is_read_as_it_was_meant(value, meant):
    with pytest.raises(HydraException) as caught:
        OverridesParser.create().parse_overrides([f"data.features={value}"])
    (word,) = shlex.split(explain(caught.value, [f"data.features={value}"]).partition("type ")[2])
    assert OverridesParser.create().parse_override(word).value() == meant


def test_a_bidirectional_language_model_is_refused(program):
    (program.folder / "t.txt").write_text("some words " * 500)
    done = program("data=text", "data.path=t.txt", "model=bilstm")
    assert done.returncode == 2 and "model=lstm" in done.stderr


# what only the data tell, or a class that refuses its arguments, before the first step
LATE = {
    "trainer.max_steps=3": ["ends the run before val/loss is first known", "type trainer.max_steps=23"],
    "trainer.max_steps=3 callbacks.early_stopping=null": ["val/loss is first known", "trainer.limit_train_batches=3"],
    "trainer.max_steps=3 monitor=train/loss": ["train/loss is first known", "type trainer.max_steps=23"],
    "trainer.limit_test_batches=0.01": ["less than one of 5 batches", "type trainer.limit_test_batches=1"],
    "optimizer=sgd optimizer.dampening=0.5": ["torch.optim.SGD: Nesterov momentum requires", "--cfg job"],
    "optimizer=schedule_free optimizer.betas=[0,0.9]": ["ScheduleFreeAdamW: beta1 must be in the range (0.0, 1.0)"],
    "trainer.val_check_interval=24": ["more than the 23 batches", "type trainer.val_check_interval=23"],
}


@pytest.mark.parametrize("typed", LATE)
def test_a_mistake_that_is_told_late(typed, program):
    done = program(*typed.split(), "hydra.run.dir=run")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stdout + done.stderr and 2 <= len(done.stderr.splitlines()) <= 5
    for words in LATE[typed]:
        assert words in done.stderr
    assert "epoch" not in done.stdout and not (program.folder / "run").exists()


def test_a_checkpoint_of_another_model_is_refused(program):
    assert program("trainer=debug", "hydra.run.dir=a").returncode == 0
    done = program("resume=a/checkpoints/last.ckpt", "model.hidden_size=32", "hydra.run.dir=b")
    assert done.returncode == 2 and "model.hidden_size is 64 there and 32 here" in done.stderr
    assert len(done.stderr.splitlines()) <= 5
    assert not (program.folder / "b").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config-dir", "nowhere", "optimizer=adam"], ["--config-dir nowhere", "no such folder"]),
        (["--config-path", "nowhere"], ["--config-path nowhere", "no such folder"]),
        (["--config-dir", "my", "-cn", "mine"], ["mine.yaml: Cannot find primary config", "another --config-name"]),
        (["--config-dir", "my", "-cn", "main", "optimizer=adm"], ["type optimizer=adam"]),
        (["--config-dir", "my", "-cn", "unknown"], ["unknown.yaml: In 'unknown': Could not find 'optimizer/adm'"]),
        (["--config-dir", "my", "-cn", "main", "--multirun", "seeds=0,1"], ["there is no key seeds", "type seed=0"]),
    ],
    ids=" ".join,
)
def test_a_config_of_ones_own(words, said, program):
    (program.folder / "my").mkdir()
    (program.folder / "my" / "main.yaml").write_text("defaults:\n  - train\n  - _self_\nseed: 3\n")
    (program.folder / "my" / "unknown.yaml").write_text("defaults:\n  - train\n  - optimizer: adm\n")
    done = program(*words)
    assert done.returncode == 2 and all(word in done.stderr for word in said), done.stderr
    assert len(done.stderr.strip().splitlines()) <= 5


def test_a_config_of_ones_own_is_run(program):
    (program.folder / "my").mkdir()
    (program.folder / "my" / "main.yaml").write_text("defaults:\n  - train\n  - _self_\nseed: 3\n")
    done = program("--config-dir", "my", "--config-name", "main", "trainer=debug", "hydra.run.dir=run")
    assert done.returncode == 0 and (program.folder / "run" / "results.json").is_file(), done.stderr
    assert json.loads((program.folder / "run" / "results.json").read_text())["seed"] == 3


def test_a_shadowed_option_is_told(program):
    (program.folder / "my" / "optimizer").mkdir(parents=True)
    (program.folder / "my" / "optimizer" / "adam.yaml").write_text(
        "_target_: torch.optim.Adam\n_partial_: true\nlr: 5\n"
    )
    done = program("--config-dir", "my", "trainer=debug")
    assert done.returncode == 2 and "lstmopt ships optimizer/adam.yaml" in done.stderr
    (program.folder / "my" / "optimizer" / "adam.yaml").rename(program.folder / "my" / "optimizer" / "mine.yaml")
    done = program("--config-dir", "my", "trainer=debug", "optimizer=mine", "optimizer.lr=0.002")
    assert done.returncode == 0, done.stderr


def test_help_lists_every_group_and_what_it_is_for(program):
    done = program("--help")
    assert done.returncode == 0
    from lstmopt.conf_dir import conf_dir

    groups = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and len(line.split()) > 2]
    from pathlib import Path

    for folder in Path(conf_dir()).iterdir():
        assert folder.suffix == ".yaml" or folder.name in groups
