"""The combinations that cannot work, in one table, checked before any data are read."""

import math
from dataclasses import dataclass

from omegaconf import DictConfig

from lstmopt.distributed import ranks
from lstmopt.features import (
    Question,
    accumulates,
    bf16,
    clips,
    closure,
    fp16,
    fsdp,
    keeps_best,
    kfac,
    memory,
    model,
    newton,
    on_cpu,
    optimizer,
    own_loss,
    strategy,
    task,
    value,
    whole,
)


@dataclass(frozen=True)
class Rule:
    """A combination: whether the config has it, why it cannot work, what to type instead."""

    holds: Question
    problem: str
    instead: str


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
        lambda cfg: strategy(cfg) == "SLURM" and not ranks.srun(),
        "trainer=slurm is for processes that srun started in a batch job, and this is none",
        "trainer=ddp",
    ),
    Rule(
        lambda cfg: fsdp(cfg) and cfg.trainer.accelerator == "cpu",
        "fsdp spreads a model over several GPUs, and trainer.accelerator=cpu has none",
        "trainer=ddp",
    ),
    Rule(
        lambda cfg: ranks.several(cfg) and (closure(cfg) or kfac(cfg)),
        "this optimizer computes with the loss or the curvature of one process' part of a batch alone",
        "optimizer=adam or trainer=default",
    ),
    Rule(
        lambda cfg: ranks.several(cfg) and memory(cfg, "TBPTT"),
        "tbptt carries the states of all sequences, and a checkpoint would hold those of the first process alone",
        "memory=recompute or trainer=default",
    ),
    Rule(
        lambda cfg: ranks.several(cfg) and value("callbacks.cuda_graph")(cfg),
        "a recorded step cannot exchange gradients with other processes",
        "callbacks=default or trainer=gpu_graph",
    ),
    Rule(
        lambda cfg: fsdp(cfg) and whole(cfg),
        "this optimizer needs whole matrices of weights or sums over them, and fsdp leaves each process a part",
        "optimizer=adam or trainer=ddp",
    ),
    Rule(
        lambda cfg: fsdp(cfg) and value("optimizer.weight_decay")(cfg),
        "under fsdp weights are cut in pieces, which cannot be told from the biases that must not decay",
        "optimizer.weight_decay=0 or trainer=ddp",
    ),
    Rule(
        lambda cfg: fsdp(cfg) and clips(cfg, "PerWeightNormClipping", "AdaptiveGradientClipping"),
        "this clipping looks at whole matrices of weights, and fsdp leaves each process a part",
        "gradient_clip=norm or trainer=ddp",
    ),
    Rule(
        lambda cfg: fsdp(cfg) and value("callbacks.gradient_clip.nonfinite")(cfg) == "rollback",
        "a checkpoint would hold the state to go back to of the first process alone",
        "callbacks.gradient_clip.nonfinite=skip or trainer=ddp",
    ),
    Rule(
        lambda cfg: fsdp(cfg) and bool(value("callbacks.precision")(cfg)),
        "short number formats under fsdp are not there yet",
        "precision=fp32 or trainer=ddp",
    ),
    Rule(
        lambda cfg: fsdp(cfg) and not keeps_best(cfg),
        "under fsdp the test reads whole weights from best.ckpt, and callbacks.best_checkpoint is left out",
        "callbacks=default or trainer=ddp",
    ),
    Rule(
        lambda cfg: cfg.model.get("bidirectional") and task(cfg) in ("LanguageModeling", "Polyphonic"),
        "a bidirectional model reads the step that this task has to predict",
        "model=lstm",
    ),
    Rule(
        lambda cfg: (
            cfg.model.get("return_sequences") is False
            and (task(cfg) in ("LanguageModeling", "Polyphonic", "Tagging") or cfg.task.get("pooling") == "mean")
        ),
        "model.return_sequences=false leaves one output per sequence, and this task needs those of all steps",
        "model.return_sequences=null",
    ),
    Rule(
        lambda cfg: cfg.trainer.accelerator in ("gpu", "cuda") and on_cpu(cfg, "auto"),
        "this machine has no GPU that torch can use",
        "trainer.accelerator=auto",
    ),
    Rule(
        lambda cfg: value("optimizer.nesterov")(cfg) and not value("optimizer.momentum")(cfg),
        "Nesterov's momentum needs a momentum",
        "optimizer.momentum=0.9 or optimizer.nesterov=false",
    ),
    Rule(value("optimizer.differentiable"), "no step is part of a graph here", "optimizer.differentiable=false"),
    Rule(
        lambda cfg: value("optimizer.foreach")(cfg) and value("optimizer.fused")(cfg),
        "foreach and fused are two ways of one update",
        "optimizer.foreach=null",
    ),
    Rule(lambda cfg: fp16(cfg) and on_cpu(cfg), "fp16_mixed needs a GPU", "precision=bf16_mixed"),
    Rule(
        lambda cfg: fp16(cfg) and clips(cfg) and value("optimizer.fused")(cfg),
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
            and value("callbacks.lr_schedule.cycle_momentum")(cfg)
        ),
        "a schedule-free optimizer computes its average from the momentum, which must not be cycled",
        "callbacks.lr_schedule.cycle_momentum=false",
    ),
    Rule(
        lambda cfg: (
            model(cfg) in ("LSTM", "ChronoLSTM", "SplitLSTM", "LayerNormLSTM", "ResidualLSTM")
            and (cfg.model.get("dropout") or 0) > 0
            and cfg.model.get("num_layers") == 1
        ),
        "model.dropout acts between layers, and there is one layer only",
        "model.num_layers=2 or model.dropout=0",
    ),
    Rule(
        lambda cfg: model(cfg) == "PatchLSTM" and task(cfg) != "Forecasting",
        "patch_lstm forecasts each series from its own past, and this task has none",
        "model=lstm",
    ),
    Rule(
        lambda cfg: (cfg.model.get("proj_size") or 0) >= (cfg.model.get("hidden_size") or 1),
        "a projection makes outputs smaller: model.proj_size has to be below model.hidden_size",
        "model.proj_size=0",
    ),
    Rule(
        lambda cfg: closure(cfg) and clips(cfg),
        "this optimizer compares the loss with what the gradient foretells, and needs it unclipped",
        "gradient_clip=none",
    ),
    Rule(
        lambda cfg: closure(cfg) and accumulates(cfg),
        "this optimizer evaluates one batch several times per step, and gradients cannot be accumulated over batches",
        "memory=none trainer.accumulate_grad_batches=1",
    ),
    Rule(
        lambda cfg: closure(cfg) and memory(cfg, "TBPTT"),
        "this optimizer evaluates a batch several times, and each time the carried state would go on",
        "memory=none",
    ),
    Rule(
        lambda cfg: (newton(cfg) or kfac(cfg)) and memory(cfg, "Recompute"),
        "recomputation never has the whole predictions, and this optimizer needs their curvature",
        "memory=none",
    ),
    Rule(
        lambda cfg: (closure(cfg) or kfac(cfg)) and fp16(cfg),
        "fp16 scales the loss, and what this optimizer takes from the loss itself would be wrong or vanish",
        "precision=fp32",
    ),
    Rule(
        lambda cfg: newton(cfg) and bf16(cfg),
        "conjugate gradients need more digits than bf16 has",
        "precision=fp32",
    ),
    Rule(
        lambda cfg: kfac(cfg) and cfg.model.get("bidirectional"),
        "kfac knows one-directional LSTMs only",
        "model=lstm or optimizer=adam",
    ),
    Rule(
        lambda cfg: memory(cfg, "TBPTT") and task(cfg) in ("Forecasting", "Classification"),
        "tbptt cuts sequences whose every step has a label, and this task has one label per sequence",
        "memory=recompute",
    ),
    Rule(
        lambda cfg: memory(cfg, "TBPTT", "Recompute") and cfg.model.get("bidirectional"),
        "a model that reads from both ends needs the whole sequence, and this memory option cuts it in time",
        "model=lstm or memory=accumulate",
    ),
    Rule(
        lambda cfg: memory(cfg, "Recompute") and model(cfg) in ("PatchLSTM", "AWDLSTM"),
        "recomputation cuts sequences in time, and this model works on whole ones (segments, dropout masks)",
        "model=lstm or memory=accumulate",
    ),
    Rule(
        lambda cfg: memory(cfg, "GradientAccumulation") and cfg.trainer.accumulate_grad_batches != 1,
        "gradients would be accumulated twice",
        "trainer.accumulate_grad_batches=1 or memory=none",
    ),
    Rule(
        lambda cfg: value("callbacks.mixup")(cfg) and (own_loss(cfg) or task(cfg) == "LanguageModeling"),
        "mixup mixes numbers and losses, which tokens, tbptt, recompute and optimizers that use curvature do not allow",
        "callbacks=default",
    ),
    Rule(
        lambda cfg: value("callbacks.cuda_graph")(cfg) and own_loss(cfg),
        "a recorded step is the same kernels every time, and this optimizer or memory option needs more",
        "trainer=gpu",
    ),
    Rule(
        lambda cfg: cfg.tune.lr and (closure(cfg) or "lr" not in cfg.optimizer or optimizer("Prodigy")(cfg)),
        "this optimizer finds the length of its steps itself, and tune.lr has no rate to look for",
        "tune.lr=false",
    ),
    Rule(
        lambda cfg: cfg.tune.lr and value("callbacks.lr_schedule.max_lr")(cfg) is not None,
        "callbacks.lr_schedule.max_lr says how far the rate goes, and what tune.lr finds would have no effect",
        "callbacks.lr_schedule.max_lr=null",
    ),
    Rule(
        lambda cfg: cfg.trainer.max_epochs is None,
        "a run counts its epochs up to trainer.max_epochs; trainer.max_steps and trainer.max_time end it before",
        "trainer.max_epochs=1000",
    ),
    Rule(
        lambda cfg: cfg.trainer.limit_train_batches == 0 or cfg.trainer.max_steps == 0,
        "nothing would be trained",
        "trainer.limit_train_batches=1.0 trainer.max_steps=-1",
    ),
    Rule(
        lambda cfg: cfg.trainer.overfit_batches != 0,
        "trainer.overfit_batches needs batches in an order of Lightning's, and the data option deals its own",
        "trainer.limit_train_batches=1 trainer.overfit_batches=0",
    ),
    Rule(
        lambda cfg: cfg.trainer.limit_test_batches == 0,
        "nothing would be tested, and results.json holds the test beside the baselines'",
        "trainer.limit_test_batches=1.0",
    ),
    Rule(
        lambda cfg: (
            cfg.trainer.limit_val_batches == 0
            or (cfg.trainer.check_val_every_n_epoch or 0) > (cfg.trainer.max_epochs or math.inf)
        ),
        "nothing would be validated, and results.json gives the best value of a validation metric",
        "trainer.limit_val_batches=1.0 trainer.check_val_every_n_epoch=1",
    ),
    Rule(
        lambda cfg: str(cfg.monitor).startswith("test/"),
        "the test comes after the training, and what is monitored has to be known before",
        "monitor=val/loss mode=min",
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
