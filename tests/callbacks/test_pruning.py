"""When a trial is given up."""

import optuna
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel

from lstmopt.callbacks.pruning import Pruning
from lstmopt.errors import Pruned


class Model(BoringModel):
    """Validates to 1, 2, 3 ..., one for each epoch."""

    def on_validation_epoch_end(self):
        self.log("val/loss", torch.tensor(self.current_epoch + 1.0))


class After(optuna.pruners.BasePruner):
    """Gives up every trial from so many epochs on."""

    def __init__(self, epochs):
        self.epochs = epochs

    def prune(self, study, trial):
        return trial.last_step >= self.epochs


class Stop(pl.Callback):
    """Ends the training after so many epochs, as early stopping does."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_validation_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


def fitted(pruner, tmp_path, *callbacks, **limits):
    """What a trial has reported once its training has ended, and whether it was given up."""
    trial = optuna.create_study(pruner=pruner).ask()
    options = {"limit_train_batches": 2, "limit_val_batches": 1, "num_sanity_val_steps": 0, "logger": False}
    options |= {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(default_root_dir=tmp_path, callbacks=[*callbacks, Pruning(trial)], **options, **limits)
    try:
        trainer.fit(Model())
        pruned = False
    except Pruned:
        pruned = True
    return trial.study.trials[0].intermediate_values, pruned


@pytest.mark.parametrize(
    ("epochs", "callbacks", "limits", "reported", "pruned"),
    [
        (2, [], {"max_epochs": 4}, 2, True),
        (4, [], {"max_epochs": 4}, 4, False),  # nothing is left to save
        (3, [Stop(3)], {"max_epochs": 4}, 3, False),
        (2, [Stop(3)], {"max_epochs": 4}, 2, True),
        (3, [], {"max_steps": 6}, 3, False),
        (2, [], {"max_steps": 6}, 2, True),
    ],
)
def test_given_up_before_the_end_alone(epochs, callbacks, limits, reported, pruned, tmp_path):
    values, given_up = fitted(After(epochs), tmp_path, *callbacks, **limits)
    assert values == {k: float(k) for k in range(1, reported + 1)}
    assert given_up == pruned
