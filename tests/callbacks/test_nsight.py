"""NVTX ranges, with a stub in place of CUDA's library, and the script that starts nsys."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from foreign import STEPS_PER_EPOCH, Foreign, fit, loader, trainer

from lstmopt.callbacks.gradient_norm_clipping import GradientNormClipping
from lstmopt.callbacks.nsight import Nsight

SCRIPT = Path(__file__).parents[2] / "scripts" / "nsys_profile.sh"


@pytest.fixture
def ranges(monkeypatch):
    told = []
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", lambda name: told.append(name))
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: told.append("pop"))
    return told


def in_balance(told):
    """The names, after checking that each is popped before the next is pushed."""
    assert told[1::2] == ["pop"] * (len(told) // 2) and len(told) % 2 == 0
    assert told[0] == "lstmopt"  # the trial whether there is a library
    return told[2::2]


def merged(names):
    """Without repetitions, as a callback's hooks come between two parts of one phase."""
    return [name for name, before in zip(names, [None, *names], strict=False) if name != before]


def test_without_cuda_nothing_is_marked_and_that_is_said_once(tmp_path):
    with pytest.warns(UserWarning, match="no CUDA") as warned:
        module, run = fit(tmp_path, Nsight())
    assert sum("no CUDA" in str(warning.message) for warning in warned) == 1
    plain, _ = fit(tmp_path)
    for a, b in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


def test_ranges_in_order(ranges, tmp_path):
    _, run = fit(tmp_path, Nsight(), GradientNormClipping(1.0), epochs=1)
    assert merged(in_balance(ranges)) == ["data", "forward", "backward", "clip", "step"] * STEPS_PER_EPOCH
    assert type(run.profiler).__name__ == "PassThroughProfiler"


def test_ranges_of_a_closure_that_is_called_three_times(ranges, tmp_path):
    fit(tmp_path, Nsight(), module=Foreign(lambda p: torch.optim.LBFGS(p, lr=1e-3, max_iter=3)), epochs=1)
    names = in_balance(ranges)
    first = names[: names.index("data", 3)]
    assert merged(first) == ["data", *["forward", "backward", "clip", "step"] * 3]


@pytest.mark.parametrize("where", ["training_step", "backward", "configure_gradient_clipping", "on_train_batch_end"])
def test_ranges_of_a_broken_run(where, ranges, tmp_path):
    def broken(self, *args, **kwargs):
        raise RuntimeError("broken")

    module = type("Broken", (Foreign,), {where: broken})()
    run = trainer(tmp_path, Nsight())
    with pytest.raises(RuntimeError, match="broken"):
        run.fit(module, loader())
    names = in_balance(ranges)
    assert names[0] == "data" and "forward" in names
    assert type(run.profiler).__name__ == "PassThroughProfiler"


def script(folder, path):
    environment = dict(os.environ, PATH=path, PYTHON="our-python", NSYS_OUTPUT=str(folder / "report"))
    command = ["bash", str(SCRIPT), "optimizer=adam", "data.path=a b.csv"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_script_starts_a_training_under_nsys(tmp_path):
    stub = tmp_path / "nsys"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    done = script(tmp_path, f"{tmp_path}:{os.environ['PATH']}")
    words = done.stdout.splitlines()
    assert done.returncode == 0 and words[0] == "profile" and f"--output={tmp_path / 'report'}" in words
    assert words[-5:] == ["our-python", str(SCRIPT.parents[1] / "train.py"), "profiler=nsight", *words[-2:]]
    assert words[-2:] == ["optimizer=adam", "data.path=a b.csv"]


def test_script_says_what_to_install(tmp_path):
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(Path("/usr/bin") / tool)
    done = script(tmp_path, str(tmp_path))
    assert done.returncode == 2 and "nsight-systems-cli" in done.stderr and not done.stdout
