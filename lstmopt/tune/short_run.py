"""A few training steps of a config, on a module that is thrown away."""

import copy
import io
import tempfile
import warnings
from collections.abc import Set
from contextlib import redirect_stdout
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf, open_dict

from lstmopt.build import Parts, build
from lstmopt.data.datamodule import DataModule
from lstmopt.errors import Interrupted
from lstmopt.run_facts import SLOTS
from lstmopt.signals import Stopped

KEPT = ({*SLOTS} - {"lr_schedule"}) | {"schedule_free", "compiled_kernel", "keep_memory", "lean_loop"}
PLAIN = {
    "max_epochs": -1,
    "min_epochs": None,
    "min_steps": None,
    "max_time": None,
    "fast_dev_run": False,
    "limit_val_batches": 0,
    "val_check_interval": None,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10**9,
    "devices": 1,
}


def short_run(
    cfg: DictConfig,
    callback: pl.Callback,
    steps: int,
    seed: int,
    datamodule: DataModule | None = None,
    trainer: dict[str, Any] | None = None,
    kept: Set[str] = KEPT,
) -> DataModule:
    """Train for some optimizer steps with the model, optimizer, clipping, precision and memory option of a config.

    No schedule, no validation, no logs, no files. Weights and batch order are those of `seed`; the data are the
    config's. Steps whose gradients are not finite are left out.

    Args:
        cfg: the composed config; it is not changed.
        callback: watches.
        steps: optimizer steps, -1 for any number; the callback may end them earlier.
        seed: of weights, batch order and dropout.
        datamodule: of an earlier call, so that the data need not be read again.
        trainer: keys of the Trainer that shall be other than said above, as `limit_val_batches`.
        kept: names of the config's callbacks that take part.

    Returns:
        The datamodule.

    Raises:
        Interrupted: a signal came.
        UserError: the config cannot be built.
    """
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = _built(cfg, callback, steps, seed, datamodule, trainer or {}, kept)
        try:
            parts.trainer.fit(parts.module, datamodule=parts.datamodule)
        except Stopped as stop:
            raise Interrupted(stop.signum, "the same command looks for it again") from None
        finally:
            parts.datamodule.cut = None
    return parts.datamodule


def _built(
    cfg: DictConfig,
    callback: pl.Callback,
    steps: int,
    seed: int,
    datamodule: DataModule | None,
    trainer: dict[str, Any],
    kept: Set[str],
) -> Parts:
    short = copy.deepcopy(cfg)
    with open_dict(short):
        data: Any = OmegaConf.to_container(short.data, resolve=True)
        short.data = data
        short.seed = seed
        short.logger = {}
        short.callbacks = {name: node for name, node in (short.callbacks or {}).items() if name in kept and node}
        if "nonfinite" in (short.callbacks.get("gradient_clip") or {}):
            short.callbacks.gradient_clip.nonfinite = "skip"
        short.trainer.update({**PLAIN, "max_steps": steps, **trainer})
    with tempfile.TemporaryDirectory() as folder:
        parts = build(short, folder, datamodule)
    parts.datamodule.seed = seed
    parts.trainer.callbacks.append(callback)  # type: ignore[attr-defined]
    return parts
