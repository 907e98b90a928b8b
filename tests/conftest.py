"""One thread, so that the suite runs the same everywhere, and the whole program in a child process."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import functools
import importlib
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import optuna
import pytest
import torch
from hydra import compose, initialize_config_dir

from lstmopt.conf_dir import conf_dir
from lstmopt.importing import imported

torch.set_num_threads(1)


@functools.cache
def warm_up() -> None:
    """Once for all children: imports, and what Hydra keeps from one composition for the next."""
    for module in ("lstmopt.run", "pytorch_optimizer", "torch.utils.tensorboard", "lstmopt.search.sweep"):
        imported(module)
    optuna.storages.RDBStorage("sqlite://")  # imports alembic, and much of itself
    imported("optuna.visualization.matplotlib")
    words = ["trainer.max_epochs=1", "optimizer=adam", "callbacks=[default]", "optimizer.betas=[0.9,0.99]"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        compose("train", words)


def pytest_runtest_setup(item):
    from lstmopt.callbacks.amp import computes_in_bf16

    if item.get_closest_marker("bf16") and not computes_in_bf16(torch.device("cpu")):
        pytest.skip("this CPU has no bfloat16 arithmetic")


def run_program(*arguments: str, cwd: Path, command: str = "lstmopt.train") -> subprocess.CompletedProcess:
    """`lstmopt-train ARGUMENTS` in a forked child: a fresh program without the seconds that imports take."""
    warm_up()
    main = importlib.import_module(command).main

    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.chdir(cwd)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                sys.argv = ["lstmopt-train", *map(str, arguments)]
                main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, os.waitstatus_to_exitcode(status), out.read(), err.read())


@pytest.fixture
def program(tmp_path):
    """The program in an empty folder; `program.folder` is that folder."""

    def run(*arguments: str, **options: str) -> subprocess.CompletedProcess:
        return run_program(*arguments, cwd=tmp_path, **options)

    run.folder = tmp_path
    return run
