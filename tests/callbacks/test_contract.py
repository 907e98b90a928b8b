"""What holds for every callback there is: found by walking the package, not by a list."""

import importlib
import inspect
import pkgutil

import pytest
import pytorch_lightning as pl
import torch
from foreign import ByKeyword, Foreign, fit
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.loggers import CSVLogger

import lstmopt.callbacks

FOUND = pkgutil.walk_packages(lstmopt.callbacks.__path__, "lstmopt.callbacks.")
MODULES = [importlib.import_module(found.name) for found in FOUND]
CLASSES = [
    (module, cls)
    for module in MODULES
    for name, cls in vars(module).items()
    if inspect.isclass(cls)
    and issubclass(cls, pl.Callback)
    and cls.__module__ == module.__name__
    and not name.startswith("_")
]
NAMES = [cls.__name__ for _, cls in CLASSES]
BASES = ("LRSchedule",)  # says how a schedule is made, and is none itself


def plain(value):
    if isinstance(value, dict):
        return all(plain(key) and plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return value is None or type(value) in (bool, int, float, str, torch.Tensor)


def test_callbacks_are_found():
    assert len(CLASSES) >= 17
    assert len(MODULES) == len(CLASSES), "one module, one public callback"
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize(("module", "cls"), CLASSES, ids=NAMES)
def test_module_is_named_after_its_class(module, cls):
    assert cls.__name__.lower().endswith(module.__name__.rsplit(".", 1)[1].replace("_", ""))
    assert inspect.getdoc(cls)


@pytest.mark.parametrize(("module", "cls"), CLASSES, ids=NAMES)
def test_works_alone_in_a_plain_trainer_and_keeps_plain_state(module, cls, tmp_path):
    if cls.__name__ in BASES:
        pytest.skip("a base class")
    options = {
        "enable_checkpointing": issubclass(cls, Checkpoint),
        "enable_progress_bar": issubclass(cls, ProgressBar),
    }
    for folder, logger in (("bare", False), ("logged", CSVLogger(tmp_path))):
        callback = cls()
        _, run = fit(tmp_path / folder, callback, logger=logger, **options)
        assert plain(callback.state_dict())
    run.save_checkpoint(tmp_path / "whole.ckpt")
    saved = torch.load(tmp_path / "whole.ckpt", weights_only=True)
    assert plain(saved["callbacks"]) and plain(saved["lr_schedulers"])
    fresh = cls()
    again = {"module": ByKeyword(), "epochs": 3, "ckpt_path": tmp_path / "whole.ckpt"}
    fit(tmp_path / "resumed", fresh, **again, **options)
    assert plain(fresh.state_dict())


class Breaks(Foreign):
    """Breaks in a step, after the LSTM has run."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if batch_idx == self.at:
            raise RuntimeError("broken")
        return loss


def left(folder, at, *callbacks, **options):
    """What a fit that breaks leaves: the names in each module's `__dict__`, its class, its hooks; torch's threads."""
    broken = Breaks(at)
    with pytest.raises(RuntimeError, match="broken"):
        fit(folder, *callbacks, module=broken, **options)
    found = {"threads": torch.get_num_threads()}
    for name, module in broken.named_modules():
        hooks = {key: len(value) for key, value in vars(module).items() if "hook" in key and isinstance(value, dict)}
        found[name] = type(module), set(vars(module)), hooks
    return found


@pytest.mark.parametrize(("module", "cls"), CLASSES, ids=NAMES)
def test_a_fit_that_breaks_leaves_what_it_leaves_without_the_callback(module, cls, tmp_path, monkeypatch):
    if cls.__name__ in BASES:
        pytest.skip("a base class")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 4)  # for what tries numbers of threads
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)))
    options = {
        "enable_checkpointing": issubclass(cls, Checkpoint),
        "enable_progress_bar": issubclass(cls, ProgressBar),
    }
    threads = torch.get_num_threads()
    try:
        for at in (1, 3):
            expected = left(tmp_path / "without", at)
            assert left(tmp_path / "with", at, cls(), **options) == expected
    finally:
        torch.set_num_threads(threads)
