"""One run, from the checked config to its results."""

import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lstmopt import check, compat, results
from lstmopt.build import Parts, build
from lstmopt.callbacks.throughput import Throughput
from lstmopt.errors import ConfigError, Interrupted, UserError
from lstmopt.evaluate import baselines
from lstmopt.loggers import RunTensorBoard
from lstmopt.resume import find, verify, weights


def run(cfg: DictConfig) -> float:
    """Check, build, fit, test, and leave `results.json` and the picture in the run folder.

    Returns:
        The best value of the monitored metric.

    Raises:
        UserError: a mistake of the user; a run folder made for it is removed again.
        Interrupted: a signal stopped the training; `results.json` says `stopped`.
    """
    output_dir = Path(HydraConfig.get().runtime.output_dir)
    try:
        search_path = [source.path for source in HydraConfig.get().runtime.config_sources if source.schema == "file"]
        problems = compat.shadowed(search_path) + check.problems(cfg)
        problems = problems or compat.problems(cfg)
        if problems:
            raise ConfigError("\n".join(problems))
        return _train(cfg, output_dir)
    except UserError:
        _remove_unused(output_dir)
        raise


def _train(cfg: DictConfig, output_dir: Path) -> float:
    checkpoint = find(cfg.resume, output_dir)
    finished = results.finished(output_dir, cfg.trainer.max_epochs)
    if checkpoint and finished and cfg.resume == "auto":
        print(f"{output_dir} is finished; resume=none trains anew, a larger trainer.max_epochs goes on")
        return float(finished["best"])
    if checkpoint and OmegaConf.select(cfg, "logger.tensorboard"):
        cfg.logger.tensorboard.purge_step = verify(checkpoint)["global_step"]
    quiet()
    parts = build(cfg, str(output_dir))
    if checkpoint:
        verify(checkpoint, parts.module, cfg.trainer.max_epochs)
        print(f"going on from {checkpoint}")
    began = time.monotonic()
    status = "completed"
    try:
        parts.trainer.fit(parts.module, datamodule=parts.datamodule, ckpt_path=checkpoint, weights_only=True)
    except Interrupted:
        status = "stopped"
        raise
    except SystemExit:  # Lightning's answer to a second interrupt
        status = "stopped"
        raise Interrupted(signal.SIGINT) from None
    except BaseException:
        status = "failed"
        raise
    finally:
        result = _facts(cfg, parts, output_dir) | {"status": status, "train_seconds": time.monotonic() - began}
        if parts.trainer.global_step:
            results.write(output_dir, result)
    _test(parts, output_dir, result)
    results.write(output_dir, result)
    results.show(parts.module.task, result, output_dir)
    _hparams(cfg, parts, result)
    return float(result["best"])


def _facts(cfg: DictConfig, parts: Parts, output_dir: Path) -> dict[str, Any]:
    """What `results.json` says about the training; the design page fixes the names."""
    trainer = parts.trainer
    measured = next((c for c in trainer.callbacks if isinstance(c, Throughput)), None)  # type: ignore[attr-defined]
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    best = getattr(trainer.checkpoint_callback, "best_model_score", None)
    kept = output_dir / "checkpoints" / "best.ckpt"
    return {
        "monitor": cfg.monitor,
        "best": float(best) if best is not None else metrics.get(cfg.monitor),
        "metrics": metrics,
        "baseline": {},
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "parameters": sum(p.numel() for p in parts.module.parameters()),
        "seconds_to_first_step": measured.seconds_to_first_step if measured else None,
        "samples_per_second": measured.samples_per_second if measured else None,
        "gflops_per_second": measured.gflops_per_second if measured else None,
        "peak_memory_mb": results.peak_memory_mb(),
        "checkpoint": "checkpoints/best.ckpt" if kept.is_file() else None,
        "seed": cfg.seed,
        "overrides": list(HydraConfig.get().overrides.task),
        "versions": results.versions(),
    }


def _test(parts: Parts, output_dir: Path, result: dict[str, Any]) -> None:
    """Test metrics of the best epoch's weights, the baselines', and the picture."""
    task = parts.module.task
    if result["checkpoint"]:
        parts.module.load_state_dict(weights(output_dir / result["checkpoint"]))
    result["metrics"] |= parts.trainer.test(parts.module, datamodule=parts.datamodule, verbose=False)[0]
    scores = baselines(task, parts.datamodule)
    best = next(iter(scores))
    result["baseline"] = {"name": best, **scores[best], "all": scores}
    picture = task.picture(parts.module.predict_batch, parts.datamodule.splits["test"])
    picture.savefig(output_dir / "picture.png", dpi=100)
    for logger in parts.trainer.loggers:
        if isinstance(logger, RunTensorBoard):
            logger.experiment.add_figure("test/picture", picture, parts.trainer.global_step)


def _hparams(cfg: DictConfig, parts: Parts, result: dict[str, Any]) -> None:
    """A row of the HPARAMS tab: the settings that matter most, and whatever was typed."""
    chosen = HydraConfig.get().runtime.choices
    settings: dict[str, Any] = {group: str(chosen[group]) for group in ("optimizer", "lr_scheduler")}
    keys = ["optimizer.lr", "model.hidden_size", "data.batch_size", "seed"]
    keys += [override.split("=")[0].lstrip("+~") for override in HydraConfig.get().overrides.task]
    for key in keys:
        value = chosen[key] if key in chosen else OmegaConf.select(cfg, key)
        if value is not None:
            settings[key] = value if isinstance(value, bool | int | float) else str(value)
    metrics = {k: v for k, v in result["metrics"].items() if k.startswith(("val/", "test/"))}
    for logger in parts.trainer.loggers:
        if isinstance(logger, RunTensorBoard):
            logger.log_result(settings, metrics)


def _remove_unused(output_dir: Path) -> None:
    """Remove a run folder that holds nothing but Hydra's copy of the config."""
    left = [path for path in output_dir.glob("*") if path.name != ".hydra"]
    if output_dir.is_dir() and not left:
        shutil.rmtree(output_dir)
        for parent in output_dir.parents[:2]:  # the date folder, and outputs/
            if any(parent.iterdir()) or parent == Path.cwd():
                break
            parent.rmdir()


def quiet() -> None:
    """Leave out Lightning's tips and notes about things that are meant to be so."""
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*Trying to infer the `batch_size`.*",
        ".*isinstance.treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", text)
    warnings.filterwarnings("ignore", ".*number of training batches.*smaller than the logging interval.*")
    torch.set_float32_matmul_precision("high")
