"""From the config to the objects: the only place where anything is instantiated."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytorch_lightning as pl
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lstmopt.callbacks.lr_schedule import LRSchedule
from lstmopt.checkpoint_file import CheckpointFile
from lstmopt.data.datamodule import DataModule
from lstmopt.errors import ConfigError, UserError
from lstmopt.module import LSTMModule


@dataclass
class Parts:
    """What a run is made of."""

    datamodule: DataModule
    module: LSTMModule
    trainer: pl.Trainer


def build(cfg: DictConfig, output_dir: str, datamodule: DataModule | None = None) -> Parts:
    """Load the data, unless they are given, then make task, model, module and trainer.

    Raises:
        DataError: the data are missing or not usable.
        ConfigError: the monitored metric does not exist, or an option refuses its arguments.
    """
    datamodule = datamodule or loaded(cfg)
    pl.seed_everything(cfg.seed, verbose=False)
    task = make(cfg.task)(spec=datamodule.spec)
    _check_monitors(cfg, [f"val/{name}" for name in task.metrics()] + ["train/loss"])
    model = make(cfg.model)(input_size=task.input_size)
    module = LSTMModule(task, model, make(cfg.optimizer))
    task.start_at_prior(datamodule.splits["train"])
    callbacks = [make(callback) for callback in (cfg.get("callbacks") or {}).values() if callback]
    trainer = make(
        cfg.trainer,
        callbacks=callbacks,
        logger=[make(logger) for logger in (cfg.get("logger") or {}).values() if logger],
        default_root_dir=output_dir,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_autolog_hparams=False,
        plugins=[CheckpointFile()],
    )
    return Parts(datamodule, module, trainer)


def _check_monitors(cfg: DictConfig, metrics: list[str]) -> None:
    """Look at what is monitored, also by callbacks of this project."""
    monitors = {"monitor": cfg.monitor}
    for name, callback in (cfg.get("callbacks") or {}).items():
        if callback and "monitor" in callback and callback._target_.startswith("lstmopt."):
            monitors[f"callbacks.{name}.monitor"] = callback.monitor
    for key, monitor in monitors.items():
        if monitor not in metrics:
            raise ConfigError(f"{key}={monitor} is not a metric", f"type {key}= and one of {', '.join(metrics)}")


def loaded(cfg: DictConfig) -> DataModule:
    """The data, read and cut into parts.

    Raises:
        DataError: they are missing or not usable.
    """
    pl.seed_everything(cfg.seed, verbose=False)  # for data of the user's own that draw from the common generators
    datamodule: DataModule = make(cfg.data)
    datamodule.loader = make(cfg.loader)
    datamodule.setup()
    return datamodule


def make(node: DictConfig, **arguments: Any) -> Any:
    """The object that a config node describes, with plain lists and dicts as arguments.

    A `_partial_` refuses its arguments when it is called, and a schedule when it makes its scheduler; both raise the
    same error then.

    Raises:
        ConfigError: it refuses its arguments.
    """
    name = str(node._target_)
    try:
        made = instantiate(node, **arguments, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, MisconfigurationException | ValueError | TypeError):
            raise _refused(name, cause) from cause
        raise
    if isinstance(made, partial):
        return partial(_called, name, made.func, *made.args, **made.keywords)
    if isinstance(made, LRSchedule):
        made.make = partial(_called, name, made.make)  # type: ignore[method-assign]
    return made


def _called(name: str, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Any:
    try:
        return function(*arguments, **keywords)
    except UserError:
        raise
    except Exception as error:
        own = type(error).__module__.startswith("pytorch_optimizer.")  # its errors are plain exceptions
        if own or type(error) in (ValueError, TypeError, RuntimeError, ZeroDivisionError):
            raise _refused(name, error) from error
        raise


def _refused(name: str, error: BaseException) -> ConfigError:
    lines = str(error).splitlines() or [type(error).__name__]
    return ConfigError(f"{name}: {lines[0]}", "see python train.py --cfg job")
