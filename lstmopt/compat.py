"""The combinations that cannot work, in one table, checked before any data are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lstmopt.distributed import ranks


@dataclass(frozen=True)
class Rule:
    """A combination: whether the config has it, why it cannot work, what to type instead."""

    holds: Callable[[DictConfig], Any]
    problem: str
    instead: str


def _value(key: str) -> Callable[[DictConfig], Any]:
    return lambda cfg: OmegaConf.select(cfg, key)


def _task(cfg: DictConfig) -> str:
    return str(cfg.task._target_).rsplit(".", 1)[-1]


def _model(cfg: DictConfig) -> str:
    return str(cfg.model._target_).rsplit(".", 1)[-1]


def _on_cpu(cfg: DictConfig, accelerator: str | None = None) -> bool:
    import torch

    accelerator = accelerator or cfg.trainer.accelerator
    return accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())


_fp16 = lambda cfg: _value("callbacks.precision.precision")(cfg) == "16-mixed"  # noqa: E731
_bf16 = lambda cfg: bool(_value("callbacks.precision._target_")(cfg)) and not _fp16(cfg)  # noqa: E731
_clips = lambda cfg: str(_value("callbacks.gradient_clip._target_")(cfg)).endswith("Clipping")  # noqa: E731
_memory = lambda cfg, *names: str(_value("callbacks.memory._target_")(cfg)).endswith(names)  # noqa: E731
_accumulates = lambda cfg: cfg.trainer.accumulate_grad_batches != 1 or _memory(cfg, "GradientAccumulation")  # noqa: E731


def _optimizer(*names: str) -> Callable[[DictConfig], bool]:
    return lambda cfg: str(cfg.optimizer._target_).endswith(names)


_newton = _optimizer("NaturalGradient", "NewtonCG")  # conjugate gradients on the graph of one batch
_closure = _optimizer("NaturalGradient", "NewtonCG", ".LBFGS")  # the loss is evaluated several times per step
_kfac = _optimizer("KFAC")
_own_loss = lambda cfg: _newton(cfg) or _kfac(cfg) or _memory(cfg, "TBPTT", "Recompute")  # noqa: E731


def _strategy(cfg: DictConfig) -> str:
    return str(_value("trainer.strategy._target_")(cfg)).rsplit(".", 1)[-1]


_WHOLE = _optimizer("Muon", "SOAP", "Prodigy")  # they need whole matrices, or sums over all weights
_fsdp = lambda cfg: _strategy(cfg) == "FSDP"  # noqa: E731

RULES = [
    Rule(
        lambda cfg: isinstance(cfg.trainer.strategy, str) and cfg.trainer.strategy != "auto",
        "the processes of Lightning's own strategies would each begin a run of their own",
        "trainer.strategy=auto or trainer=ddp",
    ),
    Rule(
        lambda cfg: cfg.trainer.strategy == "auto" and ranks.several_devices(cfg),
        "several devices need a strategy that says how they share the work",
        "trainer.devices=1 trainer.num_nodes=1 or trainer=ddp",
    ),
    Rule(
        lambda cfg: _strategy(cfg) == "SLURM" and not ranks.srun(),
        "trainer=slurm is for processes that srun started in a batch job, and this is none",
        "trainer=ddp",
    ),
    Rule(
        lambda cfg: _fsdp(cfg) and cfg.trainer.accelerator == "cpu",
        "fsdp spreads a model over several GPUs, and trainer.accelerator=cpu has none",
        "trainer=ddp",
    ),
    Rule(
        lambda cfg: ranks.several(cfg) and (_closure(cfg) or _kfac(cfg)),
        "this optimizer computes with the loss or the curvature of one process' part of a batch alone",
        "optimizer=adam or trainer=default",
    ),
    Rule(
        lambda cfg: ranks.several(cfg) and _memory(cfg, "TBPTT"),
        "tbptt carries the states of all sequences, and a checkpoint would hold those of the first process alone",
        "memory=recompute or trainer=default",
    ),
    Rule(
        lambda cfg: ranks.several(cfg) and _value("callbacks.cuda_graph")(cfg),
        "a recorded step cannot exchange gradients with other processes",
        "callbacks=default or trainer=gpu_graph",
    ),
    Rule(
        lambda cfg: _fsdp(cfg) and _WHOLE(cfg),
        "this optimizer needs whole matrices of weights or sums over them, and fsdp leaves each process a part",
        "optimizer=adam or trainer=ddp",
    ),
    Rule(
        lambda cfg: _fsdp(cfg) and _value("optimizer.weight_decay")(cfg),
        "under fsdp weights are cut in pieces, which cannot be told from the biases that must not decay",
        "optimizer.weight_decay=0 or trainer=ddp",
    ),
    Rule(
        lambda cfg: (
            _fsdp(cfg)
            and str(_value("callbacks.gradient_clip._target_")(cfg)).endswith(
                ("PerWeightNormClipping", "AdaptiveGradientClipping")
            )
        ),
        "this clipping looks at whole matrices of weights, and fsdp leaves each process a part",
        "gradient_clip=norm or trainer=ddp",
    ),
    Rule(
        lambda cfg: _fsdp(cfg) and _value("callbacks.gradient_clip.nonfinite")(cfg) == "rollback",
        "a checkpoint would hold the state to go back to of the first process alone",
        "callbacks.gradient_clip.nonfinite=skip or trainer=ddp",
    ),
    Rule(
        lambda cfg: _fsdp(cfg) and bool(_value("callbacks.precision")(cfg)),
        "short number formats under fsdp are not there yet",
        "precision=fp32 or trainer=ddp",
    ),
    Rule(
        lambda cfg: (
            _fsdp(cfg)
            and not any("BestCheckpoint" in str(c and c.get("_target_")) for c in (cfg.callbacks or {}).values())
        ),
        "under fsdp the test reads whole weights from best.ckpt, and callbacks.best_checkpoint is left out",
        "callbacks=default or trainer=ddp",
    ),
    Rule(
        lambda cfg: cfg.model.get("bidirectional") and _task(cfg) in ("LanguageModeling", "Polyphonic"),
        "a bidirectional model reads the step that this task has to predict",
        "model=lstm",
    ),
    Rule(
        lambda cfg: (
            cfg.model.get("return_sequences") is False
            and (_task(cfg) in ("LanguageModeling", "Polyphonic", "Tagging") or cfg.task.get("pooling") == "mean")
        ),
        "model.return_sequences=false leaves one output per sequence, and this task needs those of all steps",
        "model.return_sequences=null",
    ),
    Rule(
        lambda cfg: cfg.trainer.accelerator in ("gpu", "cuda") and _on_cpu(cfg, "auto"),
        "this machine has no GPU that torch can use",
        "trainer.accelerator=auto",
    ),
    Rule(
        lambda cfg: _value("optimizer.nesterov")(cfg) and not _value("optimizer.momentum")(cfg),
        "Nesterov's momentum needs a momentum",
        "optimizer.momentum=0.9 or optimizer.nesterov=false",
    ),
    Rule(
        lambda cfg: _fp16(cfg) and _on_cpu(cfg),
        "fp16_mixed needs a GPU",
        "precision=bf16_mixed",
    ),
    Rule(
        lambda cfg: _fp16(cfg) and _clips(cfg) and _value("optimizer.fused")(cfg),
        "a fused optimizer unscales fp16 gradients itself, after they are clipped",
        "optimizer.fused=false or precision=bf16_mixed",
    ),
    Rule(
        lambda cfg: cfg.mode == "min" and str(cfg.monitor).endswith(("/accuracy", "/f1")),
        "a higher accuracy or f1 is better, and mode=min would keep the worst",
        "mode=max",
    ),
    Rule(
        lambda cfg: cfg.mode == "max" and not str(cfg.monitor).endswith(("/accuracy", "/f1")),
        "a lower value of the monitored metric is better, and mode=max would keep the worst",
        "mode=min",
    ),
    Rule(
        lambda cfg: (
            str(cfg.optimizer._target_).rsplit(".", 1)[-1].startswith("ScheduleFree")
            and _value("callbacks.lr_schedule.cycle_momentum")(cfg)
        ),
        "a schedule-free optimizer computes its average from the momentum, which must not be cycled",
        "callbacks.lr_schedule.cycle_momentum=false",
    ),
    Rule(
        lambda cfg: (
            _model(cfg) in ("LSTM", "ChronoLSTM", "SplitLSTM", "LayerNormLSTM", "ResidualLSTM")
            and (cfg.model.get("dropout") or 0) > 0
            and cfg.model.get("num_layers") == 1
        ),
        "model.dropout acts between layers, and there is one layer only",
        "model.num_layers=2 or model.dropout=0",
    ),
    Rule(
        lambda cfg: _model(cfg) == "PatchLSTM" and _task(cfg) != "Forecasting",
        "patch_lstm forecasts each series from its own past, and this task has none",
        "model=lstm",
    ),
    Rule(
        lambda cfg: (cfg.model.get("proj_size") or 0) >= (cfg.model.get("hidden_size") or 1),
        "a projection makes outputs smaller: model.proj_size has to be below model.hidden_size",
        "model.proj_size=0",
    ),
    Rule(
        lambda cfg: _closure(cfg) and _clips(cfg),
        "this optimizer compares the loss with what the gradient foretells, and needs it unclipped",
        "gradient_clip=none",
    ),
    Rule(
        lambda cfg: _closure(cfg) and _accumulates(cfg),
        "this optimizer evaluates one batch several times per step, and gradients cannot be accumulated over batches",
        "memory=none trainer.accumulate_grad_batches=1",
    ),
    Rule(
        lambda cfg: _closure(cfg) and _memory(cfg, "TBPTT"),
        "this optimizer evaluates a batch several times, and each time the carried state would go on",
        "memory=none",
    ),
    Rule(
        lambda cfg: (_newton(cfg) or _kfac(cfg)) and _memory(cfg, "Recompute"),
        "recomputation never has the whole predictions, and this optimizer needs their curvature",
        "memory=none",
    ),
    Rule(
        lambda cfg: (_closure(cfg) or _kfac(cfg)) and _fp16(cfg),
        "fp16 scales the loss, and what this optimizer takes from the loss itself would be wrong or vanish",
        "precision=fp32",
    ),
    Rule(
        lambda cfg: _newton(cfg) and _bf16(cfg),
        "conjugate gradients need more digits than bf16 has",
        "precision=fp32",
    ),
    Rule(
        lambda cfg: _kfac(cfg) and cfg.model.get("bidirectional"),
        "kfac knows one-directional LSTMs only",
        "model=lstm or optimizer=adam",
    ),
    Rule(
        lambda cfg: _memory(cfg, "TBPTT") and _task(cfg) in ("Forecasting", "Classification"),
        "tbptt cuts sequences whose every step has a label, and this task has one label per sequence",
        "memory=recompute",
    ),
    Rule(
        lambda cfg: _memory(cfg, "TBPTT", "Recompute") and cfg.model.get("bidirectional"),
        "a model that reads from both ends needs the whole sequence, and this memory option cuts it in time",
        "model=lstm or memory=accumulate",
    ),
    Rule(
        lambda cfg: _memory(cfg, "Recompute") and _model(cfg) in ("PatchLSTM", "AWDLSTM"),
        "recomputation cuts sequences in time, and this model works on whole ones (segments, dropout masks)",
        "model=lstm or memory=accumulate",
    ),
    Rule(
        lambda cfg: _memory(cfg, "GradientAccumulation") and cfg.trainer.accumulate_grad_batches != 1,
        "gradients would be accumulated twice",
        "trainer.accumulate_grad_batches=1 or memory=none",
    ),
    Rule(
        lambda cfg: _value("callbacks.mixup")(cfg) and (_own_loss(cfg) or _task(cfg) == "LanguageModeling"),
        "mixup mixes numbers and losses, which tokens, tbptt, recompute and optimizers that use curvature do not allow",
        "callbacks=default",
    ),
    Rule(
        lambda cfg: _value("callbacks.cuda_graph")(cfg) and _own_loss(cfg),
        "a recorded step is the same kernels every time, and this optimizer or memory option needs more",
        "trainer=gpu",
    ),
    Rule(
        lambda cfg: cfg.tune.lr and (_closure(cfg) or "lr" not in cfg.optimizer or _optimizer("Prodigy")(cfg)),
        "this optimizer finds the length of its steps itself, and tune.lr has no rate to look for",
        "tune.lr=false",
    ),
    Rule(
        lambda cfg: cfg.tune.lr and _value("callbacks.lr_schedule.max_lr")(cfg) is not None,
        "callbacks.lr_schedule.max_lr says how far the rate goes, and what tune.lr finds would have no effect",
        "callbacks.lr_schedule.max_lr=null",
    ),
    Rule(
        lambda cfg: (
            cfg.trainer.limit_val_batches == 0 or (cfg.trainer.check_val_every_n_epoch or 0) > cfg.trainer.max_epochs
        ),
        "nothing would be validated, and results.json gives the best value of a validation metric",
        "trainer.limit_val_batches=1.0 trainer.check_val_every_n_epoch=1",
    ),
    Rule(
        lambda cfg: (cfg.tune.lr or cfg.tune.batch_size) and ranks.several(cfg),
        "tune.lr and tune.batch_size try in one process",
        "trainer=default",
    ),
]


def problems(cfg: DictConfig) -> list[str]:
    """Every rule that holds, with what to type instead."""
    return [f"{rule.problem}\n  type {rule.instead}" for rule in RULES if rule.holds(cfg)]
