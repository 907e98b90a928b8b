"""Which of several processes this is, by its environment. Imported at every start: nothing heavy here."""

import os
import sys
import warnings
from typing import Any

from omegaconf import DictConfig, OmegaConf

STARTED_BY = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")  # what torchrun, Lightning or a user's own script sets


def several(cfg: Any) -> bool:
    """Whether a config is of a training in several processes: its strategy is a class."""
    return OmegaConf.is_dict(OmegaConf.select(cfg, "trainer.strategy"))


def several_devices(cfg: Any) -> bool:
    """Whether Lightning would choose a strategy of its own for more than one device."""
    devices, accelerator = cfg.trainer.devices, cfg.trainer.accelerator
    if devices in ("auto", -1, "-1"):
        import torch

        return accelerator != "cpu" and torch.cuda.device_count() > 1
    count = len(devices) if OmegaConf.is_list(devices) else len(str(devices).split(","))
    return count > 1 or (isinstance(devices, int) and devices > 1) or cfg.trainer.num_nodes != 1


def srun() -> bool:
    """Whether SLURM's srun started this process as one of a batch job; an interactive shell's is none."""
    return "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def started_outside() -> bool:
    """Whether all processes of a training are started by somebody else, who says to each which it is."""
    return srun() or any(name in os.environ for name in STARTED_BY)


def is_first(cfg: Any) -> bool:
    """Whether this process writes files and speaks: the only one, or that of rank 0."""
    if not several(cfg):
        return True
    if srun():
        return os.environ["SLURM_PROCID"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in STARTED_BY)


def common_folder() -> str | None:
    """The name of a run folder that all processes of a SLURM job step find, and find again when it is requeued."""
    if not srun():
        return None
    step = os.environ.get("SLURM_STEP_ID", "0")
    return f"outputs/slurm-{os.environ['SLURM_JOB_ID']}" + (f"-{step}" if step != "0" else "")


def be_quiet(cfg: DictConfig) -> None:
    """What a process behind the first leaves to that one: its output, its warnings, and the profiler's files."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  open until the process ends
    warnings.simplefilter("ignore")
    if OmegaConf.select(cfg, "callbacks.profiler"):
        cfg.callbacks.profiler = None
