"""What a search says and leaves to type."""

import json
import shlex
import shutil

import pytest
from omegaconf import OmegaConf
from test_search import SMALL, swept


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
