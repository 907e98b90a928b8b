"""The further processes of a training, started by its first."""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from lstmopt.cores import share_of_cores
from lstmopt.distributed import together
from lstmopt.errors import LostProcess

PR_SET_PDEATHSIG = 1
VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS")
GRACE = 10.0  # seconds in which a process notes by itself that another one is gone


class Processes(_SubprocessScriptLauncher):
    """Lightning's launcher of a process for each further device; under srun or torchrun they are there already.

    Lightning starts the same command again, which under Hydra would be another run, or another sweep, in another
    folder. Here a process gets the composed config of this run on its standard input, and joins it in its folder. It
    has a session of its own, so that Ctrl-C reaches the first process alone, and it ends with that one, however it
    ends. Every process uses its share of the cores; a task of srun with `--cpus-per-task` has its own already. Without
    Hydra the command is Lightning's.

    Attributes:
        config: of the run; None where the program is another one.
    """

    config: DictConfig | None = None

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start the processes at the first call, and call `function`."""
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not hasattr(self, "_before"):
            self._before = {name: os.environ.get(name) for name in VARIABLES}
            self._threads = torch.get_num_threads()
        if "OMP_NUM_THREADS" not in os.environ:
            own = os.environ.get("SLURM_CPUS_PER_TASK") if environment.creates_processes_externally else None
            threads = min(int(own), share_of_cores(1)) if own else share_of_cores(self.num_processes)
            os.environ["OMP_NUM_THREADS"] = str(threads)
            torch.set_num_threads(threads)
        if not environment.creates_processes_externally:
            self._call_children_scripts()
            threading.Thread(target=self._watch, daemon=True).start()
        return function(*args, **kwargs)

    def _call_children_scripts(self) -> None:
        if self.config is None:
            return super()._call_children_scripts()
        self._check_can_spawn_children()
        environment = self.cluster_environment
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
        os.environ["NODE_RANK"], os.environ["LOCAL_RANK"] = str(environment.node_rank()), "0"
        os.environ["WORLD_SIZE"] = str(self.num_processes * self.num_nodes)
        handed_over = pickle.dumps((self.config, HydraConfig.instance().cfg))
        path = os.pathsep.join(filter(None, sys.path))
        for rank in range(1, self.num_processes):
            process = subprocess.Popen(
                [sys.executable, "-m", "lstmopt.distributed.child"],
                env=os.environ | {"LOCAL_RANK": str(rank), "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=_end_with_the_first,
            )
            self.procs.append(process)
            assert process.stdin is not None
            process.stdin.write(handed_over)
            process.stdin.close()

    def _watch(self) -> None:
        """End this process where another one is gone and it waits for it in a GPU's queue, which nothing interrupts."""
        procs = self.procs
        while self.procs and all(process.poll() in (None, 0) for process in procs):
            time.sleep(0.5)
        time.sleep(GRACE)
        if self.procs is procs:
            print(f"lstmopt: {self.lost()}", file=sys.stderr, flush=True)
            self.kill(signal.SIGKILL)
            os._exit(1)

    def lost(self) -> str | None:
        """Which process was killed, or broke off."""
        for rank, process in enumerate(self.procs, start=1):
            code = process.poll()
            if code:
                return f"process {process.pid} of local rank {rank} ended with {code}"
        return None

    def finish(self, failed: bool) -> str | None:
        """Wait for the end of the others, or, where this one failed, end them; what happened to a lost one.

        Leaves the connection, and the environment as it was, so that a next run can start processes of its own.
        """
        procs, self.procs = self.procs, []
        until = time.monotonic() + (GRACE / 5 if failed else 6 * GRACE)
        while any(process.poll() is None for process in procs) and time.monotonic() < until:
            time.sleep(0.02)
        codes = [process.poll() for process in procs]
        for process in procs:
            process.kill()
            process.wait()
        together.leave()
        for name, value in getattr(self, "_before", {}).items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        torch.set_num_threads(getattr(self, "_threads", torch.get_num_threads()))
        lost = [(rank, code) for rank, code in enumerate(codes, start=1) if code is not None and code < 0]
        return f"the process of local rank {lost[0][0]} was killed by signal {-lost[0][1]}" if lost else None


@contextmanager
def joined(trainer: pl.Trainer, config: DictConfig) -> Iterator[None]:
    """What processes do together on a run's config; at its end the further ones have ended.

    Raises:
        LostProcess: one of them was killed.
    """
    launcher = trainer.strategy.launcher
    if isinstance(launcher, Processes):
        launcher.config = config
    if trainer.world_size > 1:  # Lightning tells the others from within its handler, and waits there for them to hear
        trainer._signal_connector._sigterm_notifier_fn = _heard  # type: ignore[assignment]
    try:
        yield
    except BaseException as error:
        lost = launcher.finish(failed=True) if isinstance(launcher, Processes) else None
        if lost and isinstance(error, RuntimeError):
            raise LostProcess(lost) from error
        raise
    if isinstance(launcher, Processes):
        launcher.finish(failed=False)


def _heard(signum: int, frame: FrameType | None) -> None:
    """What comes next in Lightning's chain of handlers answers: `signals.answered`."""


def _end_with_the_first() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
