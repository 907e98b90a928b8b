"""Trials on a Ray cluster."""

import importlib.util
import logging
import os
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner

from lstmopt.errors import ConfigError, Interrupted
from lstmopt.search.progress import Progress
from lstmopt.search.study import Study

if TYPE_CHECKING:
    from lstmopt.search.sweep import Sweep

INSTALL = "type pip install 'lstmopt[ray]'"
QUIET = {  # Ray's words about itself, and the times of its files
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
}


class RayTune:
    """Has Ray Tune run the trials of a study on the nodes of a cluster, which all see the folder of the sweep.

    The study's own database stays the one record: the proposals are made in it by Ray's `OptunaSearch`, and how a trial
    ended is told to it, so that report, restarts and pruned trials are those of every other engine. A trial whose
    process or node dies is started again, and goes on from `last.ckpt`. A search that was stopped goes on from Ray's
    own record (`Tuner.restore`), with what its scheduler has seen.

    Args:
        address: of the cluster: `auto` is the one that `ray start` made on this machine, null makes one for this search
            alone, or `HOST:PORT`.
        cpus_per_trial: cores that a trial takes of its node.
        gpus_per_trial: GPUs, or a part of one.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(self, address: str | None = "auto", cpus_per_trial: float = 1.0, gpus_per_trial: float = 0.0) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("search=ray_tune needs Ray", INSTALL)
        self.address, self.cpus_per_trial, self.gpus_per_trial = address, cpus_per_trial, gpus_per_trial

    def search(self, study: Study, sweep: "Sweep", deadline: float, progress: Progress) -> None:
        """Run trials until all have ended.

        Args:
            study: of the trials.
            sweep: what they have in common.
            deadline: of `time.monotonic`, after which none is begun.
            progress: is told of trials that ended.

        Raises:
            ConfigError: there is no such cluster, or ASHA has no such option.
            Interrupted: a signal asked for the end; the trials saved their checkpoints.
        """
        os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
        scheduler = self._scheduler(study.study.pruner, sweep)
        import ray

        from lstmopt.search.ray_trial import ENDING

        self._connect()
        signals: list[int] = []
        (sweep.folder / ENDING).unlink(missing_ok=True)

        def stop(signum: int, frame: FrameType | None) -> None:
            """Ray ends its loop on SIGUSR1 as it would on SIGINT, and saves."""
            signals.append(signum)
            (sweep.folder / ENDING).touch()
            if signal.getsignal(signal.SIGUSR1) == earlier:  # it has not begun
                raise _interrupted(signum)
            os.kill(os.getpid(), signal.SIGUSR1)

        earlier = signal.getsignal(signal.SIGUSR1)
        before = {signum: signal.signal(signum, stop) for signum in (signal.SIGTERM, signal.SIGINT)}
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        try:
            self._tuner(study, sweep, scheduler, deadline, progress).fit()
        finally:
            for signum, handler in (before | {signal.SIGUSR1: earlier}).items():
                signal.signal(signum, handler)
            ray.shutdown()
            (sweep.folder / ENDING).unlink(missing_ok=True)
            study.release_all()
        if signals:
            raise _interrupted(signals[0])

    def _connect(self) -> None:
        import ray

        try:
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's error is in the report
            ray.init(address=self.address or "local", logging_level="ERROR", log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"search.cluster.address={self.address}: {str(error).splitlines()[0][:200]}",
                "type ray start --head first, or search.cluster.address=null for a cluster of its own",
            ) from None

    def _scheduler(self, pruner: BasePruner, sweep: "Sweep") -> Any:
        """Ray's scheduler that does what the pruner says."""
        from ray.tune.schedulers import FIFOScheduler

        from lstmopt.search.ray_search import Halving

        if isinstance(pruner, NopPruner):
            return FIFOScheduler()
        asked = sweep.search.pruner
        if not isinstance(pruner, SuccessiveHalvingPruner) or asked.bootstrap_count or asked.min_resource == "auto":
            raise ConfigError(
                f"search=ray_tune does not know this pruner: {asked._target_.rsplit('.')[-1]}",
                "type search/pruner=asha or search/pruner=none",
            )
        return Halving(
            time_attr="epochs",
            metric="value",
            mode=sweep.config.mode,
            max_t=sweep.config.trainer.max_epochs + 1,  # a trial ends by itself
            grace_period=asked.min_resource * asked.reduction_factor**asked.min_early_stopping_rate,
            reduction_factor=asked.reduction_factor,
        )

    def _tuner(self, study: Study, sweep: "Sweep", scheduler: Any, deadline: float, progress: Progress) -> Any:
        from ray import tune

        from lstmopt.search.ray_search import Halving, Proposals, begin, named
        from lstmopt.search.ray_trial import RayTrial

        searcher = Proposals(study, sweep, deadline, progress)
        begin(searcher, scheduler)
        if isinstance(scheduler, Halving):
            scheduler.replay(study.trials())
        trainable = tune.with_resources(RayTrial, {"cpu": self.cpus_per_trial, "gpu": self.gpus_per_trial})
        ray_folder = sweep.folder / "ray"
        running = _newest(ray_folder)
        if running is not None and tune.Tuner.can_restore(str(running)) and searcher.left():
            return tune.Tuner.restore(str(running), trainable=trainable, resume_unfinished=True)
        return tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,  # the study counts
                max_concurrent_trials=sweep.search.n_jobs,
                trial_name_creator=named,
                trial_dirname_creator=named,
                reuse_actors=False,
            ),
            run_config=tune.RunConfig(
                name=str(len(list(ray_folder.glob("*")))),
                storage_path=str(ray_folder),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the run folder is the checkpoint
                failure_config=tune.FailureConfig(max_failures=sweep.search.max_retries),
                verbose=0,
            ),
        )


def _interrupted(signum: int) -> Interrupted:
    error = Interrupted(signum)
    error.hint = "the same command goes on from here"
    return error


def _newest(folder: Path) -> Path | None:
    """Ray's record that was begun last."""
    found = [path for path in folder.glob("*") if path.name.isdigit()]
    return max(found, key=lambda path: int(path.name), default=None)
