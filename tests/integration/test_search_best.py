"""What a search says and leaves to type."""

import json
import shlex
import shutil

import pytest
from omegaconf import OmegaConf
from test_search import SMALL, swept

TINY = ["data=mackey_glass", "data.length=330", "data.input_length=16", "data.horizon=3", "model.hidden_size=8"]


def test_the_best_of_a_recipe_is_that_recipe_again_wherever_the_folder_is(program):
    """A folder whose name is more than letters and commas are words of Hydra's grammar."""
    words = ["search=grid", "experiment=adding_600", "optimizer.lr=1e-2,1e-3", "model.hidden_size=4"]
    fast = ["trainer.limit_val_batches=1", "data.sequence_length=20", "data.n_train=200"]
    study = program.folder / "Jürgen (a, b)" / "s"
    done = program(*words, *fast, *SMALL, "search.study=s", f"hydra.sweep.dir='{study}'")
    assert done.returncode == 0, done.stderr
    assert len(json.loads((study / "sweep.json").read_text())["trials"]) == 2
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("or as a file:")]
    assert shlex.split(line.partition("train.py")[2]) == ["--config-dir", str(study), "experiment=best"]
    shutil.copytree(study / "experiment", program.folder / "plain" / "experiment")  # Hydra's flag takes no such name
    again = program("--config-dir", "plain", "experiment=best", "hydra.run.dir=again", "trainer.max_epochs=1")
    assert again.returncode == 0, again.stderr
    best = OmegaConf.load(program.folder / "again" / ".hydra" / "config.yaml")
    first = OmegaConf.load(study / "0" / ".hydra" / "config.yaml")
    assert best.data == first.data and best.model == first.model and best.optimizer._target_ == first.optimizer._target_
    assert best.data._target_.endswith("Adding")


def test_a_search_around_an_earlier_best_with_options_of_ones_own(program):
    """`best.yaml` has beside it what it is made of: Hydra takes one `--config-dir`."""
    own = program.folder / "my" / "optimizer"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("_target_: torch.optim.Adam\n_partial_: true\nlr: 0.01\nbetas: [0.8, 0.9]\n")
    grid = ["search=grid", "search/pruner=none"]
    flags = ["--config-dir", "my", "optimizer=mine"]
    done, found = swept(program, *flags, *grid, "model.hidden_size=4,5", study="one")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("once more:")]
    once = program(*shlex.split(line.partition("train.py")[2]), "hydra.run.dir=once")
    assert once.returncode == 0, once.stderr
    done, found = swept(program, "--config-dir", "multirun/one", *grid, "experiment=best", "seed=3,4", study="two")
    assert done.returncode == 0, done.stderr
    words = ["--config-dir", "multirun/two", *SMALL, "experiment=best", "hydra.run.dir=again"]
    again = program(*words)
    assert again.returncode == 0, again.stderr
    result = json.loads((program.folder / "again" / "results.json").read_text())
    assert result["best"] == found["best"]["value"]
    config = OmegaConf.load(program.folder / "again" / ".hydra" / "config.yaml")
    assert config.optimizer.betas == [0.8, 0.9]


MIXED = """
model: [lstm, awd_lstm]
model.num_layers: [1, 2]
model.dropout: {choices: [0.1], when: {model.num_layers: 2}}
"""


def test_a_point_that_cannot_be_composed_fails_alone_and_the_best_is_what_was_typed(program):
    """Groups are typed twice and with a list; two seeds; what is large is best."""
    space = program.folder / "my" / "search" / "space"
    space.mkdir(parents=True)
    (space / "mixed.yaml").write_text(MIXED)
    words = ["search=grid", "search/pruner=none", "search/space=mixed", "search.seeds_per_trial=2", "optimizer=adam"]
    words += ["callbacks=[default,mixup]", "callbacks.compiled_kernel=null", "search.objectives=[val/mae:maximize]"]
    done, found = swept(program, "--config-dir", "my", *TINY, *words, "optimizer=sgd")
    assert done.returncode == 0, done.stderr
    trials = {(trial["params"]["model"], trial["params"]["model.num_layers"]): trial for trial in found["trials"]}
    failed = trials.pop(("awd_lstm", 2))
    assert failed["status"] == "failed" and "model.dropout" in failed["reason"] and not failed["metrics"]
    folder = program.folder / "multirun" / "s"
    rows = [line.split("|")[1:4] for line in (folder / "report.md").read_text().splitlines() if "`" in line]
    order = sorted(trials.values(), key=lambda trial: -trial["value"])
    assert [int(row[0]) for row in rows] == [*(trial["number"] for trial in order), failed["number"]]
    assert "[default,mixup]" in done.stdout.partition("best: ")[2].splitlines()[0]
    for trial in trials.values():
        runs = [json.loads((folder / str(trial["number"]) / k / "results.json").read_text()) for k in "01"]
        assert trial["train_seconds"] == pytest.approx(sum(run["train_seconds"] for run in runs))
        assert trial["metrics"] == pytest.approx(
            {k: (v + runs[1]["metrics"][k]) / 2 for k, v in runs[0]["metrics"].items()}
        )
        assert trial["epochs"] == runs[0]["epochs"] == 3
    again = program("--config-dir", str(folder), "experiment=best", "hydra.run.dir=again")
    assert again.returncode == 0, again.stderr
    first = folder / str(found["best"]["number"]) / "0"
    once, best = (OmegaConf.load(run / ".hydra" / "config.yaml") for run in (program.folder / "again", first))
    assert all(once[key] == best[key] for key in ("optimizer", "model", "data"))
    assert best.optimizer._target_ == "torch.optim.SGD" and "mixup" in once.callbacks
    assert once.callbacks.keys() == best.callbacks.keys() - {"pruning"}  # which is the search's


@pytest.mark.parametrize(
    ("words", "said", "unsaid"),
    [
        (["search.objectives=[test/mse]"], "type search/pruner=none", "monitor="),
        (
            ["data=copy_memory", "monitor=val/accuracy", "mode=max", "search.objectives=[val/accuracy]"],
            "type search.objectives=[val/accuracy:maximize], or",
            "mode=min",
        ),
        (["search.objectives=[val/mae]"], "type monitor=val/mae mode=min, or search/pruner=none", "maximize"),
    ],
)
def test_what_to_type_where_the_pruner_sees_another_metric(words, said, unsaid, program):
    done, _ = swept(program, "search=random", "optimizer=adam,sgd", *words)
    assert done.returncode == 2 and said in done.stderr and unsaid not in done.stderr.split("type")[1], done.stderr
