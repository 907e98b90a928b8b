"""Every option of every group trains on the default data to less than the naive forecast's error, or says why not.

The bound is the error of the seasonal naive forecast on the validation part, 0.0176; an untrained LSTM has 0.09.
"""

import json
from pathlib import Path

import pytest

from lstmopt.conf_dir import conf_dir

AT_LEAST = {
    "optimizer": 19,
    "lr_scheduler": 10,
    "gradient_clip": 5,
    "precision": 4,
    "memory": 4,
    "model": 8,
    "profiler": 6,
    "loader": 5,
    "trainer": 7,
    "logger": 3,
}
BOUND = 0.0176
EPOCHS = {
    "optimizer=natural_gradient": 1,
    "optimizer=newton_cg": 1,
    "optimizer=lion": 6,
    "optimizer=radam": 8,
    "optimizer=soap": 6,
    "memory=accumulate": 12,
    "lr_scheduler=warmup_plateau": 8,
}
REFUSED = {
    "precision=fp16_mixed": "needs a GPU",
    "memory=tbptt": "one label per sequence",
    "trainer=gpu": "no GPU",
    "trainer=gpu_graph": "no GPU",
    "trainer=fsdp": "no GPU",
    "trainer=slurm": "srun started in a batch job",
}
FOUND = {group: sorted(file.stem for file in Path(conf_dir(), group).glob("*.yaml")) for group in AT_LEAST}


def test_options_are_found():
    assert {group: len(FOUND[group]) for group in FOUND if len(FOUND[group]) < AT_LEAST[group]} == {}


@pytest.mark.parametrize("option", [f"{group}={name}" for group in FOUND for name in FOUND[group]])
def test_option(option, program):
    if option == "trainer=debug":
        return  # six steps, which test_train.py looks at
    done = program(option, f"trainer.max_epochs={EPOCHS.get(option, 3)}", "hydra.run.dir=run", "callbacks.picture=null")
    if option in REFUSED:
        assert done.returncode == 2 and REFUSED[option] in done.stderr and "  type " in done.stderr
        assert not (program.folder / "run").exists()
        return
    assert done.returncode == 0, done.stderr
    found = json.loads((program.folder / "run" / "results.json").read_text())
    assert found["status"] == "completed"
    assert found["best"] < BOUND
    if option.startswith("profiler=") and option not in ("profiler=none", "profiler=nsight"):  # which writes no text
        written = list((program.folder / "run" / "profile").glob("*.txt"))
        assert written and all(file.stat().st_size > 200 for file in written)
