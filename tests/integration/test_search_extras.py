"""Searches that need an extra: through the whole program where it is installed, and told of where it is not."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lstmopt
from lstmopt.conf_dir import conf_dir

ROOT = Path(lstmopt.__file__).parents[1]
MODULES = {"ray_tune": ["ray"], "keras_tuner": ["keras_tuner", "six", "sklearn"]}
EXTRA = {"ray_tune": "ray", "keras_tuner": "keras"}
HIDING = """
import importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in {hidden!r} else find_spec(name, *more)
from lstmopt.train import main
main()
"""


def script(name, engine):
    lacking = [module for module in MODULES[engine] if importlib.util.find_spec(module) is None]
    if lacking:
        pytest.skip(f"needs pip install 'lstmopt[{EXTRA[engine]}]': {', '.join(lacking)} not installed")
    command = [sys.executable, str(ROOT / "scripts" / name)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_eight_trials_on_a_cluster_with_a_worker_killed():
    done = script("check_ray.py", "ray_tune")
    assert done.returncode == 0 and "holds" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_eight_trials_of_bayesian_and_of_hyperband():
    done = script("check_keras_tuner.py", "keras_tuner")
    assert done.returncode == 0 and done.stdout.count("holds") == 2, done.stdout + done.stderr


@pytest.mark.parametrize("engine", MODULES)
def test_a_missing_extra_is_told_with_the_line_to_type(engine, tmp_path):
    """In every environment: what is installed is hidden."""
    command = [sys.executable, "-c", HIDING.format(hidden=MODULES[engine]), f"search={engine}", "trainer=debug"]
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=here)
    assert done.returncode == 2 and f"type pip install 'lstmopt[{EXTRA[engine]}]'" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.rglob("*.*"))


def test_neither_is_imported_before_it_is_asked_for():
    code = "import sys, lstmopt.search.sweep, hydra_plugins.lstmopt_search; print({'ray', 'keras'} & set(sys.modules))"
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=here)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search=tpe", "search.n_jobs=null"], "is for search=ray_tune"),
        (["search=ray_tune", "search.cluster.adress=auto"], "search.cluster.address"),
        (["search=ray_tune", "search.cluster.cpus_per_trial=many"], "a number"),
        (["search=keras_tuner", "search.sampler.oracle=gp"], "bayesian or hyperband"),
    ],
)
def test_mistakes(words, said, program):
    done = program("trainer=debug", *words, "model.hidden_size=8,16")
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (program.folder / "multirun").exists()


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_pruners_that_ray_does_not_know(pruner, program):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs pip install 'lstmopt[ray]'")
    done = program("trainer=debug", "search=ray_tune", f"search/pruner={pruner}", "model.hidden_size=8,16")
    assert done.returncode == 2 and "type search/pruner=asha or search/pruner=none" in done.stderr, done.stderr


def test_the_options_of_both_engines_are_the_shared_ones():
    """One space group and one pruner group serve every engine."""
    assert {path.stem for path in Path(conf_dir(), "search").glob("*.yaml")} >= set(MODULES)
    assert not list(Path(conf_dir(), "search").glob("*ray*/*")) + list(Path(conf_dir(), "search").glob("*keras*/*"))


def test_json_lines_of_reporting(tmp_path):
    """What the callback says to a socket, and what it does with the answers."""
    import socket

    import pytorch_lightning as pl
    import torch

    from lstmopt.callbacks.reporting import Reporting
    from lstmopt.errors import Pruned

    class Tiny(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, batch_idx):
            loss = self.layer(batch[0]).square().mean()
            self.log("val/loss", 0.5 / (self.current_epoch + 1))
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(2, 1)))
    mine, other = socket.socketpair()
    mine.sendall(b"go\nstop\n")
    mine.settimeout(60)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=5, default_root_dir=tmp_path, callbacks=[Reporting(other.detach())], **quiet)
    with pytest.raises(Pruned, match="after 2 epochs"):
        trainer.fit(Tiny(), data)
    lines = [json.loads(line) for line in mine.recv(1000).decode().splitlines()]
    assert lines == [{"epochs": 1, "value": 0.5}, {"epochs": 2, "value": 0.25}]
