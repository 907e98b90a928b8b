"""The row of a run in TensorBoard's HPARAMS tab."""

from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lstmopt.loggers import RunTensorBoard

MOST = ["optimizer.lr", "model.hidden_size", "data.batch_size", "seed"]


def log(cfg: DictConfig, overrides: list[str], trainer: pl.Trainer, metrics: dict[str, float]) -> None:
    """Log the settings that matter most, whatever was typed, and the validation and test metrics.

    Args:
        cfg: the run's config.
        overrides: what was typed.
        trainer: of the run; only its `RunTensorBoard` is written to.
        metrics: of the run.
    """
    chosen = HydraConfig.get().runtime.choices
    settings: dict[str, Any] = {group: str(chosen[group]) for group in ("optimizer", "lr_scheduler")}
    for key in [*MOST, *(word.split("=")[0].lstrip("+~") for word in overrides)]:
        value = chosen[key] if key in chosen else _typed(cfg, key)
        if value is not None:
            settings[key] = value if isinstance(value, bool | int | float) else str(value)
    for logger in trainer.loggers:
        if isinstance(logger, RunTensorBoard):
            logger.log_result(settings, {k: v for k, v in metrics.items() if k.startswith(("val/", "test/"))})


def _typed(cfg: DictConfig, key: str) -> Any:
    """A value as it is written where it refers to the environment, which nobody shall read on a page."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    raw = OmegaConf.to_container(node, resolve=False).get(name) if OmegaConf.is_dict(node) else None  # type: ignore[union-attr]
    return raw if "oc.env" in str(raw) else OmegaConf.select(cfg, key)
