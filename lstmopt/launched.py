"""A job in a process that a launcher started. Imported at every start: nothing heavy here."""

import os
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


class Launched(Callback):
    """Hydra calls it in the process of each job, before torch is imported there.

    Jobs that submitit's local executor started run all at once, so that each takes one thread, unless a search has
    shared out the cores; joblib does so by itself. What a trial of a search says is in its own `output.log`.
    """

    def __init__(self) -> None:
        self.launching = os.getpid()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before the job."""
        if os.getpid() == self.launching:
            return
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            os.environ.setdefault("OMP_NUM_THREADS", "1")
        if OmegaConf.select(config, "search.sampler") is not None:
            log = Path(config.hydra.runtime.output_dir) / "output.log"
            sys.stdout = sys.stderr = open(log, "a", buffering=1)  # noqa: SIM115  open until the next job
