"""One run, from the checked config to its results."""

import math
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint

from lstmopt import check, compat, drawing, hparams, results, resume, run_facts, run_folder, targets
from lstmopt.build import Parts, build, loaded
from lstmopt.callbacks.last_checkpoint import NAME, cut_short
from lstmopt.callbacks.picture import Picture
from lstmopt.callbacks.throughput import Throughput
from lstmopt.checkpoint_file import read
from lstmopt.conf_dir import shadowed
from lstmopt.distributed import ranks
from lstmopt.distributed.ddp import DDP
from lstmopt.distributed.fsdp import FSDP
from lstmopt.distributed.processes import joined
from lstmopt.errors import ConfigError, Interrupted, Pruned, UserError
from lstmopt.evaluate import baselines
from lstmopt.loggers import RunTensorBoard
from lstmopt.run_facts import RunFacts
from lstmopt.signals import Stopped, answered
from lstmopt.train import UNSAFE
from lstmopt.tune import settle


def run(cfg: DictConfig) -> float:
    """Check, build, fit, test, and leave `results.json` and the picture in the run folder.

    Returns:
        The best value of the monitored metric.

    Raises:
        UserError: a mistake of the user; a run folder made for it is removed again.
        Interrupted: a signal stopped the training; `results.json` says `stopped`.
    """
    with answered():
        return _run(cfg, Path(HydraConfig.get().runtime.output_dir))


def _run(cfg: DictConfig, output_dir: Path) -> float:
    first = ranks.is_first(cfg)
    if first:
        run_folder.hold(output_dir)
    else:
        ranks.be_quiet(cfg)
    for name in UNSAFE:
        os.environ.pop(name, None)  # a config can set them for a job
    try:
        foreign = targets.problems(cfg, _overrides())
        if foreign:
            raise ConfigError("\n".join(foreign[:2]))
        search_path = [source.path for source in HydraConfig.get().runtime.config_sources if source.schema == "file"]
        problems = shadowed(search_path) + check.problems(cfg)
        typed = [word.split("=")[0].lstrip("+~") for word in _overrides()]
        problems = problems or compat.problems(cfg) + settle.contradictions(cfg, typed)
        if problems:
            raise ConfigError("\n".join(problems))
        return _train(cfg, output_dir, first)
    except UserError:
        if first:
            run_folder.remove_unused(output_dir)
        raise
    except Stopped as stop:  # before or after the training
        hint = _goes_on(cfg, output_dir)
        if first:
            run_folder.remove_unused(output_dir)
        raise Interrupted(stop.signum, hint) from None
    finally:
        if first:
            run_folder.release(output_dir)


def _train(cfg: DictConfig, output_dir: Path, first: bool) -> float:
    checkpoint = resume.find(cfg.resume.path, resume.folder_of(cfg, output_dir))
    saved = read(Path(checkpoint)) if checkpoint else {}
    before, allow = saved.get("run", {}), list(cfg.resume.allow)
    quiet()
    tuned = settle.settle(cfg, output_dir, before.get("config", {}) if checkpoint else None)
    now = run_facts.settings(cfg)
    changed = run_facts.changes(str(checkpoint), before, now, allow)
    results.forget_peak_memory()
    datamodule = loaded(cfg)
    data = run_facts.digest(datamodule.splits)
    if saved:
        run_facts.changes(str(checkpoint), before, now | {"data": data}, allow)
    ended = _ended(cfg, output_dir, saved) if checkpoint and cfg.resume.path == "auto" else None
    if ended:
        return _value(ended)
    if OmegaConf.select(cfg, "logger.tensorboard") and any(output_dir.glob("events.out.*")):
        cfg.logger.tensorboard.purge_step = saved.get("global_step", 0)
    if OmegaConf.select(cfg, "logger.csv"):
        cfg.logger.csv.purge_step = saved.get("global_step", 0)
    parts = build(cfg, str(output_dir), datamodule)
    datamodule.check_limits(parts.trainer)
    if saved:
        resume.fits(str(checkpoint), saved, parts.module)
        resume.has_more(str(checkpoint), saved, cfg)
        resume.count_epochs(parts.trainer)
        print(f"going on from {checkpoint}")
    run_folder.room(output_dir, 3 * sum(p.nbytes for p in parts.module.parameters()))
    facts = RunFacts(now, data, changed, before.get("metrics", {}), before.get("seconds", 0.0))
    parts.trainer.callbacks.insert(0, facts)  # type: ignore[attr-defined]
    with joined(parts.trainer, cfg):
        result = _fit(cfg, parts, facts, checkpoint, output_dir, first, tuned)
        if result["status"] == "completed":
            with _stopped_in_the_test(output_dir, first, result):
                parts = _whole(cfg, parts, output_dir)
                _test(parts, output_dir, result)
    if first and result["status"] == "completed":
        with _stopped_in_the_test(output_dir, first, result):
            _compare(parts, output_dir, result)
        results.write(output_dir, result)
        results.show(parts.module.task, result, output_dir)
    if first and result["status"] in ("completed", "pruned"):
        hparams.log(cfg, _overrides(), parts.trainer, result["metrics"])
    return _value(result)


@contextmanager
def _stopped_in_the_test(output_dir: Path, first: bool, result: dict[str, Any]) -> Iterator[None]:
    """`results.json` of a run that a signal stops after its training: it is tested when it goes on."""
    try:
        yield
    except Stopped:
        if first and output_dir.is_dir():
            with suppress(OSError):
                results.write(output_dir, result | {"status": "stopped"})
        raise


def _value(result: dict[str, Any]) -> float:
    """What the run came to; NaN where nothing was monitored to the end."""
    return math.nan if result["best"] is None else float(result["best"])


def _ended(cfg: DictConfig, output_dir: Path, saved: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a run that has nothing left to train, said aloud; None where it has."""
    finished = results.finished(output_dir, cfg.trainer.max_epochs, cfg.trainer.max_steps)
    if finished:
        print(f"{output_dir} is finished; resume=none trains anew, a larger trainer.max_epochs or max_steps goes on")
        return finished
    finished, further = results.finished(output_dir), resume.stopped(saved, cfg)
    if finished is None or further is None:
        return None
    print(
        f"{output_dir} was stopped early after {finished['epochs']} epochs; resume=none trains anew, {further} goes on"
    )
    return finished


def _fit(
    cfg: DictConfig, parts: Parts, facts: RunFacts, checkpoint: str | None, output_dir: Path, first: bool, tuned: Any
) -> dict[str, Any]:
    """Train, and give the results; of several processes the first writes what there is to write."""
    parameters = sum(p.numel() for p in parts.module.parameters())  # before any process keeps a part of them only
    status = "completed"
    try:
        parts.trainer.fit(parts.module, datamodule=parts.datamodule, ckpt_path=checkpoint, weights_only=True)
    except Interrupted:
        status = "stopped"
        raise
    except Pruned:
        status = "pruned"
    except SystemExit as error:  # where `LastCheckpoint` is not at work, and Lightning's answer to a second interrupt
        status = "stopped"
        raise Interrupted(getattr(error, "signum", signal.SIGINT), _goes_on(cfg, output_dir)) from None
    except BaseException:
        status = "failed"
        raise
    finally:
        result = _facts(cfg, parts, output_dir) | {
            "status": status,
            "parameters": parameters,
            "train_seconds": facts.seconds,
        }
        result |= {"metrics": facts.metrics(parts.trainer)} | ({"tuned": tuned} if tuned else {})
        if first and parts.trainer.global_step > facts.first_step and output_dir.is_dir() and status != "completed":
            with suppress(OSError):  # what is wrong is told by the error that is on its way
                results.write(output_dir, result)
    if status == "completed" and first:
        run_folder.still_there(output_dir)
    return result


def _goes_on(cfg: DictConfig, output_dir: Path) -> str:
    """How a run that was stopped at once goes on, if it does."""
    if not OmegaConf.select(cfg, "callbacks.last_checkpoint"):
        return "nothing was saved, for callbacks.last_checkpoint is left out"
    if not (resume.folder_of(cfg, output_dir) / NAME).is_file():
        return "nothing was saved yet"
    return "hydra.run.dir=FOLDER of this run goes on from its last checkpoint"


def _whole(cfg: DictConfig, parts: Parts, output_dir: Path) -> Parts:
    """The parts, made anew where the weights are spread over the processes; `best.ckpt` holds them whole."""
    if not isinstance(parts.trainer.strategy, FSDP):
        return parts
    own = cfg.copy()
    own.trainer.strategy = {"_target_": f"{DDP.__module__}.{DDP.__qualname__}"}
    return build(own, str(output_dir))


def _facts(cfg: DictConfig, parts: Parts, output_dir: Path) -> dict[str, Any]:
    """What `results.json` says about the training; the design page fixes the names."""
    trainer = parts.trainer
    measured = next((c for c in trainer.callbacks if isinstance(c, Throughput)), None)  # type: ignore[attr-defined]
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    keeper = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), None)
    best, kept = (keeper.best_model_score, Path(keeper.best_model_path)) if keeper else (None, Path())
    if kept.is_relative_to(trainer.default_root_dir):
        kept = kept.relative_to(trainer.default_root_dir)
    return {
        "monitor": cfg.monitor,
        "best": float(best) if best is not None else metrics.get(cfg.monitor),
        "metrics": metrics,
        "baseline": {},
        "epochs": trainer.current_epoch - cut_short(trainer),  # whole ones
        "steps": trainer.global_step,
        "seconds_to_first_step": measured.seconds_to_first_step if measured else None,
        "samples_per_second": measured.samples_per_second if measured else None,
        "gflops_per_second": measured.gflops_per_second if measured else None,
        "peak_memory_mb": results.peak_memory_mb(),
        "checkpoint": str(kept) if (output_dir / kept).is_file() else None,  # of this run, whatever else lies there
        "first_epoch": getattr(keeper, "first_epoch", 0),
        "seed": cfg.seed,
        "overrides": _overrides(),
        "versions": results.versions(),
    }


def _test(parts: Parts, output_dir: Path, result: dict[str, Any]) -> None:
    """Test metrics of the best epoch's weights."""
    if result["checkpoint"]:
        best = read(output_dir / result["checkpoint"])
        parts.module.load_state_dict(best["state_dict"])
        kept = best.get("run", {}).get("metrics", {})
        result["metrics_at_best"] = {k: v for k, v in kept.items() if k.startswith("val/")}
    result["metrics"] |= parts.trainer.test(parts.module, datamodule=parts.datamodule, verbose=False)[0]


def _compare(parts: Parts, output_dir: Path, result: dict[str, Any]) -> None:
    """Test metrics of the baselines, and the picture, unless pictures are left out."""
    scores = baselines(parts.module.task, parts.datamodule)
    best = next(iter(scores))
    result["baseline"] = {"name": best, **scores[best], "all": scores}
    if not any(isinstance(callback, Picture) for callback in parts.trainer.callbacks):  # type: ignore[attr-defined]
        return
    from matplotlib.image import imsave

    figure = parts.module.task.picture(parts.module.predict_batch, parts.datamodule.splits["test"])
    picture = drawing.pixels(figure)
    imsave(output_dir / "picture.png", picture)
    for logger in parts.trainer.loggers:
        if isinstance(logger, RunTensorBoard):
            logger.experiment.add_image("test/picture", picture, parts.trainer.global_step, dataformats="HWC")


def _overrides() -> list[str]:
    """What was typed, to the letter, but for the search: a reference to the environment is not followed."""
    typed: list[str] = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)  # type: ignore[assignment]
    return [word for word in typed if not word.startswith("search")]


def quiet() -> None:
    """Leave out Lightning's tips and notes about things that are meant to be so."""
    import logging

    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*Trying to infer the `batch_size`.*",
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # what is logged is the same in all processes
        ".*Using `DistributedSampler` with the dataloaders.*",  # the test part is read once, and no sample twice
        ".*isinstance.treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", text)
    warnings.filterwarnings("ignore", ".*number of training batches.*smaller than the logging interval.*")
    torch.set_float32_matmul_precision("high")
