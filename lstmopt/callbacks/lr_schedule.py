"""What all learning-rate schedules share."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import LRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lstmopt.errors import ConfigError


class LRSchedule(pl.Callback):
    """A torch scheduler that Lightning steps, checkpoints and monitors as if the module had configured it.

    A schedule option is a subclass that says with `make` which scheduler, and with `interval` on which clock. It is
    made in `on_fit_start`, where the optimizers exist and a checkpoint's state is not restored yet.

    Attributes:
        interval: `step` (optimizer steps) or `epoch`.

    Raises:
        ConfigError: the module steps its optimizers by itself, where Lightning steps no schedule.
    """

    interval = "epoch"

    def make(self, optimizer: Optimizer, trainer: pl.Trainer) -> LRScheduler:
        """The scheduler for an optimizer."""
        raise NotImplementedError

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the scheduler to those that Lightning looks after."""
        if not pl_module.automatic_optimization:
            raise ConfigError(
                "with manual optimization Lightning steps no schedule",
                f"leave {type(self).__name__} out, and step a torch schedule in training_step",
            )
        for optimizer in trainer.optimizers:
            config = LRSchedulerConfig(self.make(optimizer, trainer), interval=self.interval)
            trainer.strategy.lr_scheduler_configs.append(config)


def total_steps(trainer: pl.Trainer) -> int:
    """Optimizer steps of the whole run.

    Raises:
        ConfigError: the run has no planned end.
    """
    loop = trainer.fit_loop
    loaded = loop._combined_loader
    steps: Any = trainer.estimated_stepping_batches
    loop._combined_loader = loaded  # Lightning gives the position in a resumed epoch to loaders made later only
    if steps == float("inf"):
        raise ConfigError("a schedule over the whole run needs to know its length", "type trainer.max_epochs=...")
    return int(steps)


def cycles_momentum(optimizer: Optimizer, trainer: pl.Trainer) -> bool:
    """Whether there is a momentum (or a first beta) to cycle; why not is said, and one of 0 stays off."""
    momenta = {group.get("momentum", group.get("betas", (0.0,))[0]) for group in optimizer.param_groups}
    named = {"momentum", "betas"} & set(optimizer.defaults)
    if not named or 0.0 in momenta:
        why = "has none" if 0.0 in momenta else "keeps several kinds, which torch's schedules cannot cycle"
        trainer.print(f"momentum is not cycled: {type(optimizer).__name__} {why}")
        return False
    return True
