"""What a config asks for: the questions that the table of combinations puts to it."""

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

Question = Callable[[DictConfig], Any]


def value(key: str) -> Question:
    """The value of a dotted key; None where there is none."""
    return lambda cfg: OmegaConf.select(cfg, key)


def optimizer(*names: str) -> Question:
    """Whether the optimizer is one of these classes."""
    return lambda cfg: str(cfg.optimizer._target_).endswith(names)


newton = optimizer("NaturalGradient", "NewtonCG")  # conjugate gradients on the graph of one batch
closure = optimizer("NaturalGradient", "NewtonCG", ".LBFGS")  # the loss is evaluated several times per step
kfac = optimizer("KFAC")
whole = optimizer("Muon", "SOAP", "Prodigy")  # they need whole matrices, or sums over all weights


def task(cfg: DictConfig) -> str:
    """The task's class."""
    return str(cfg.task._target_).rsplit(".", 1)[-1]


def model(cfg: DictConfig) -> str:
    """The model's class."""
    return str(cfg.model._target_).rsplit(".", 1)[-1]


def strategy(cfg: DictConfig) -> str:
    """The class of the strategy for several processes; `None` for one."""
    return str(value("trainer.strategy._target_")(cfg)).rsplit(".", 1)[-1]


def fsdp(cfg: DictConfig) -> bool:
    """Whether the weights are spread over several GPUs."""
    return strategy(cfg) == "FSDP"


def on_cpu(cfg: DictConfig, accelerator: str | None = None) -> bool:
    """Whether the config, or the accelerator in its place, means the CPU on this machine."""
    import torch

    accelerator = accelerator or cfg.trainer.accelerator
    return accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())


def fp16(cfg: DictConfig) -> bool:
    """Whether it computes in fp16, with a scaled loss."""
    return bool(value("callbacks.precision.precision")(cfg) == "16-mixed")


def bf16(cfg: DictConfig) -> bool:
    """Whether it computes in bf16, or may."""
    return bool(value("callbacks.precision._target_")(cfg)) and not fp16(cfg)


def clips(cfg: DictConfig, *names: str) -> bool:
    """Whether gradients are clipped, or by one of these classes."""
    return str(value("callbacks.gradient_clip._target_")(cfg)).endswith(names or "Clipping")


def keeps_best(cfg: DictConfig) -> bool:
    """Whether `best.ckpt` is written."""
    return any("BestCheckpoint" in str(node and node.get("_target_")) for node in (cfg.callbacks or {}).values())


def memory(cfg: DictConfig, *names: str) -> bool:
    """Whether the memory option is one of these classes."""
    return str(value("callbacks.memory._target_")(cfg)).endswith(names)


def accumulates(cfg: DictConfig) -> bool:
    """Whether a step is made of several batches."""
    return cfg.trainer.accumulate_grad_batches != 1 or memory(cfg, "GradientAccumulation")


def own_loss(cfg: DictConfig) -> bool:
    """Whether the loss comes about in another way than from the predictions for one whole batch."""
    return newton(cfg) or kfac(cfg) or memory(cfg, "TBPTT", "Recompute")
