"""Configs that would run code: nothing is executed, nothing of theirs is imported, and one message says why."""

import pytest

TARGETS = [
    "os.system",
    "posix.system",
    "subprocess.run",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "builtins.__import__",
    "importlib.import_module",
    "runpy.run_path",
    "runpy.run_module",
    "timeit.timeit",
    "pickle.loads",
    "pickle.load",
    "marshal.loads",
    "shutil.rmtree",
    "pathlib.Path.unlink",
    "code.interact",
    "pty.spawn",
    "ctypes.CDLL",
    "torch.load",
    "torch.hub.load",
    "torch.utils.collect_env.run",
    "torch.optim.optimizer.torch.utils.collect_env.run",
    "torch.nn.functional.torch.utils.collect_env.run",
    "torch.optim.adam.Adam.__init__.__globals__",
    "pytorch_lightning.callbacks.early_stopping.torch.utils.collect_env.run",
    "lstmopt.models.lstm.torch.load",
    "lstmopt.callbacks.last_checkpoint.os.system",
    "lstmopt.build.instantiate",
    "lightning_fabric.utilities.cloud_io._load",
    "numpy.load",
    "numpy.lib.npyio.NpzFile",
    "pandas.read_pickle",
    "pip._internal.main",
    "pip.main",
    "hydra.utils.get_method",
    "hydra.utils.instantiate",
    "hostile",
    "hostile.run",
    "hostile.Optimizer",
    "torch.optim.Adam2",
]
PLACES = ["optimizer._target_=", "model._target_=", "++callbacks.x._target_=", "++task.deep.list=[{_target_:"]
MODULE = "from pathlib import Path\nPath(__file__).with_name('canary').write_text('imported')\n"


@pytest.fixture
def hostile(program, monkeypatch):
    """A folder with a module whose import leaves a canary, in which the program is started."""
    (program.folder / "hostile.py").write_text(MODULE)
    monkeypatch.syspath_prepend(program.folder)
    return program


def refused(done, program, words="option files"):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and 2 <= len(done.stderr.splitlines()) <= 5, done.stderr
    assert words in done.stderr
    assert not (program.folder / "canary").exists()


def test_there_are_forty():
    assert len(TARGETS) >= 40


@pytest.mark.parametrize("target", TARGETS)
def test_a_typed_target(target, hostile):
    place = PLACES[TARGETS.index(target) % len(PLACES)]
    done = hostile(f"{place}{target}{'}]' if '{' in place else ''}", "++optimizer.command=touch canary")
    refused(done, hostile)
    assert not (hostile.folder / "outputs").exists()


@pytest.mark.parametrize("target", TARGETS[::4])
def test_a_target_in_a_file(target, hostile):
    (hostile.folder / "my" / "optimizer").mkdir(parents=True)
    (hostile.folder / "my" / "optimizer" / "mine.yaml").write_text(
        f"_target_: {target}\n_partial_: true\ncommand: touch canary\nargs: touch canary\n"
    )
    refused(hostile("--config-dir", "my", "optimizer=mine"), hostile)


FILES = {
    "callback of Hydra": "# @package _global_\nhydra:\n  callbacks:\n    x:\n      _target_: hostile.Callback\n",
    "launcher": "# @package _global_\nhydra:\n  launcher:\n    _target_: hostile.Launcher\n",
    "sweeper": "# @package _global_\nhydra:\n  sweeper:\n    _target_: hostile.Sweeper\n",
    "log handler": "# @package _global_\nhydra:\n  job_logging:\n    version: 1\n    handlers:\n      x:\n"
    "        (): hostile.Handler\n    root:\n      handlers: [x]\n",
    "log class": "# @package _global_\nhydra:\n  job_logging:\n    version: 1\n    handlers:\n      x:\n"
    "        class: hostile.Handler\n    root:\n      handlers: [x]\n",
    "log stream": "# @package _global_\nhydra:\n  hydra_logging:\n    version: 1\n    handlers:\n      x:\n"
    "        class: logging.StreamHandler\n        stream: ext://hostile.stream\n    root:\n      handlers: [x]\n",
    "plugins.allow": "# @package _global_\nplugins:\n  allow: [hostile]\noptimizer:\n  _target_: hostile.Optimizer\n",
    "interpolated": "# @package _global_\nname: hostile.run\noptimizer:\n  _target_: ${name}\n",
    "decoded": "# @package _global_\noptimizer: ${oc.decode:'{_target_:hostile.run}'}\n",
    "created": "# @package _global_\nx:\n  y: {z: 1}\noptimizer: \"${oc.create:'{_target_: hostile.run}'}\"\n",
    "no YAML": "# @package _global_\nx: [1\ny: !!binary {\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_handed_over(name, hostile):
    (hostile.folder / "my" / "experiment").mkdir(parents=True)
    (hostile.folder / "my" / "experiment" / "gift.yaml").write_text(FILES[name])
    for words in (["experiment=gift"], ["-m", "experiment=gift", "seed=0,1"]):
        done = hostile("--config-dir", "my", *words, "trainer=debug")
        assert done.returncode in (1, 2) and not (hostile.folder / "canary").exists(), done.stderr
    refused(hostile("--config-dir=my", "experiment=gift"), hostile, "")


@pytest.mark.parametrize("override", ["+hydra.callbacks.x._target_=hostile.X", "hydra.launcher._target_=hostile.X"])
def test_hydras_own_parts(override, hostile):
    refused(hostile(override), hostile, "is not allowed")


def test_yaml_that_makes_objects(hostile):
    (hostile.folder / "my" / "optimizer").mkdir(parents=True)
    (hostile.folder / "my" / "optimizer" / "mine.yaml").write_text("!!python/object/apply:os.system [touch canary]\n")
    done = hostile("--config-dir", "my", "optimizer=mine")
    assert done.returncode == 2 and not (hostile.folder / "canary").exists()
    assert "Traceback" not in done.stderr, done.stderr


def test_a_package_of_ones_own_is_allowed_on_the_command_line(program, monkeypatch):
    (program.folder / "mine.py").write_text("from torch.optim import SGD\n\n\nclass Mine(SGD):\n    pass\n")
    monkeypatch.syspath_prepend(program.folder)
    (program.folder / "my" / "optimizer").mkdir(parents=True)
    (program.folder / "my" / "optimizer" / "own.yaml").write_text("_target_: mine.Mine\n_partial_: true\nlr: 0.01\n")
    typed = ["--config-dir", "my", "optimizer=own", "trainer=debug", "hydra.run.dir=run"]
    done = program(*typed)
    assert done.returncode == 2 and "plugins.allow=[mine]" in done.stderr
    assert program(*typed, "plugins.allow=[mine]").returncode == 0


def test_the_environment_cannot_widen_it(hostile, monkeypatch):
    monkeypatch.setenv("HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE", "hostile.run:os.system")
    refused(hostile("optimizer._target_=os.system"), hostile)
