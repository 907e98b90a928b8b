"""The best epoch, also of a run that goes on in another folder."""

import shutil

import pytest
import torch
from foreign import STEPS_PER_EPOCH, Foreign, fit

from lstmopt.callbacks.best_checkpoint import BestCheckpoint
from lstmopt.callbacks.early_stopping import EarlyStopping
from lstmopt.callbacks.last_checkpoint import LastCheckpoint
from lstmopt.checkpoint_file import damage
from lstmopt.errors import CheckpointError, ConfigError

LOSSES = [3.0, 1.0, 2.0, 1.5, 0.5, 0.7]  # of six epochs


def run(folder, epochs, ckpt_path=None, dirpath=None):
    best, last = BestCheckpoint(dirpath=dirpath), LastCheckpoint()
    module = Foreign(val_losses=LOSSES)
    fit(folder, best, last, module=module, epochs=epochs, ckpt_path=ckpt_path, enable_checkpointing=True)
    return best


def epoch(folder):
    return torch.load(folder / "best.ckpt", weights_only=True)["global_step"] // STEPS_PER_EPOCH


def copied(a, b):
    shutil.copytree(a, b)
    return b / "checkpoints" / "last.ckpt"


def moved(a, b):
    a.rename(b)
    return b / "checkpoints" / "last.ckpt"


def elsewhere(a, b):
    return a / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("how", [copied, moved, elsewhere])
def test_a_worse_epoch_does_not_take_the_place_of_a_better_one(how, tmp_path):
    run(tmp_path / "a", 2)
    again = run(tmp_path / "b", 4, how(tmp_path / "a", tmp_path / "b"))
    there = tmp_path / "b" / "checkpoints"
    assert float(again.best_model_score) == min(LOSSES[:4]) and epoch(there) == 1 + LOSSES.index(min(LOSSES[:4]))
    assert again.best_model_path == str(there / "best.ckpt") and again.first_epoch == 0
    on = run(tmp_path / "b", 6, there / "last.ckpt")
    assert float(on.best_model_score) == min(LOSSES) and epoch(there) == 1 + LOSSES.index(min(LOSSES))
    assert list(on.best_k_models) == [str(there / "best.ckpt")]
    if how is elsewhere:  # a run goes on from another one's file and leaves it alone
        assert epoch(tmp_path / "a" / "checkpoints") == 2


def test_without_its_best_file_the_best_of_the_rest_is_kept_and_said(tmp_path, capsys):
    run(tmp_path / "a", 2)
    alone = tmp_path / "alone.ckpt"
    shutil.copy(tmp_path / "a" / "checkpoints" / "last.ckpt", alone)
    again = run(tmp_path / "b", 4, alone)
    assert f"is not beside {alone}: the best epoch is looked for from epoch 3 on" in capsys.readouterr().out
    there = tmp_path / "b" / "checkpoints"
    assert float(again.best_model_score) == min(LOSSES[2:4]) and epoch(there) == 4 and again.first_epoch == 2
    on = run(tmp_path / "b", 6, there / "last.ckpt")
    assert on.first_epoch == 2 and epoch(there) == 5 and not capsys.readouterr().out


def spoilt(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("dirpath", [None, "kept"])
def test_a_damaged_best_file_is_told_and_the_best_of_the_rest_is_kept(dirpath, tmp_path, capsys):
    place = tmp_path / (dirpath or "a/checkpoints")
    dirpath = dirpath and str(place)
    run(tmp_path / "a", 2, dirpath=dirpath)
    spoilt(place / "best.ckpt")
    last = tmp_path / "a" / "checkpoints" / "last.ckpt"
    again = run(tmp_path / "a", 4, last, dirpath)
    said = f"{place / 'best.ckpt'} is damaged (its checksum is another): the best epoch is looked for from epoch 3 on\n"
    assert capsys.readouterr().out.count(said) == 1
    assert float(again.best_model_score) == min(LOSSES[2:4]) and epoch(place) == 4 and again.first_epoch == 2
    assert damage(place / "best.ckpt") is None
    on = run(tmp_path / "a", 6, last, dirpath)
    assert on.first_epoch == 2 and epoch(place) == 5 and "damaged" not in capsys.readouterr().out


def test_a_damaged_best_file_with_no_epoch_left_is_an_error(tmp_path):
    run(tmp_path / "a", 2)
    last = tmp_path / "a" / "checkpoints" / "last.ckpt"
    spoilt(last.with_name("best.ckpt"))
    with pytest.raises(CheckpointError, match="no epoch is left") as caught:
        run(tmp_path / "a", 2, last)
    assert caught.value.hint == "type trainer.max_epochs=4 to look for it in more epochs, or resume=none to train anew"
    assert float(run(tmp_path / "a", 4, last).best_model_score) == min(LOSSES[2:4])


def test_a_best_file_of_later_epochs_is_not_that_of_the_checkpoint(tmp_path):
    """What was best in epoch 1 is gone when the run went on; its score must not stand for the file of epoch 2."""
    run(tmp_path / "a", 1)
    old = tmp_path / "a" / "checkpoints" / "old.ckpt"
    shutil.copy(tmp_path / "a" / "checkpoints" / "last.ckpt", old)
    run(tmp_path / "a", 2, tmp_path / "a" / "checkpoints" / "last.ckpt")
    again = run(tmp_path / "b", 1, old)
    assert again.first_epoch == 1 and again.best_model_score is None
    assert not (tmp_path / "b" / "checkpoints" / "best.ckpt").exists()


def test_a_folder_of_its_own_stays(tmp_path):
    place = tmp_path / "kept"
    run(tmp_path / "a", 2, dirpath=str(place))
    again = run(tmp_path / "a", 4, tmp_path / "a" / "checkpoints" / "last.ckpt", str(place))
    assert float(again.best_model_score) == min(LOSSES[:4]) and epoch(place) == 2
    assert not (tmp_path / "a" / "checkpoints" / "best.ckpt").exists()


# what the Trainer is told, and after how many steps it validates first: 5 batches per epoch
FIRST = [
    ({}, 5),
    ({"val_check_interval": 0.4}, 2),
    ({"val_check_interval": 3}, 3),
    ({"accumulate_grad_batches": 2}, 3),
    ({"val_check_interval": 4, "accumulate_grad_batches": 3}, 2),
    ({"check_val_every_n_epoch": 2}, 10),
    ({"check_val_every_n_epoch": 2, "accumulate_grad_batches": 2}, 6),
    ({"check_val_every_n_epoch": None, "val_check_interval": 7}, 7),
    ({"limit_train_batches": 2}, 2),
]


@pytest.mark.parametrize("make", [BestCheckpoint, EarlyStopping])
@pytest.mark.parametrize(("options", "steps"), FIRST, ids=str)
def test_a_run_that_ends_before_its_first_validation_is_refused(options, steps, make, tmp_path):
    module = Foreign()
    options = options | {"epochs": 9, "enable_checkpointing": make is BestCheckpoint}
    with pytest.raises(ConfigError) as caught:
        fit(tmp_path, make(), module=module, max_steps=steps - 1, **options)
    assert f"is first known, after {steps} steps" in caught.value.problem and not module.lrs
    assert caught.value.hint.startswith(f"type trainer.max_steps={steps}")
    seen = []
    module.on_validation_epoch_end = lambda: seen.append(module.trainer.sanity_checking)
    _, trainer = fit(tmp_path, make(), module=module, max_steps=steps, **options)
    assert False in seen and trainer.global_step == steps


@pytest.mark.parametrize("make", [BestCheckpoint, EarlyStopping])
@pytest.mark.parametrize(("interval", "epochs"), [(6, 2), (11, 3), (5, 1)])  # of 5 batches an epoch
def test_epochs_that_end_before_the_first_validation_are_refused(interval, epochs, make, tmp_path):
    options = {"check_val_every_n_epoch": None, "val_check_interval": interval}
    options["enable_checkpointing"] = make is BestCheckpoint
    if epochs > 1:
        with pytest.raises(ConfigError) as caught:
            fit(tmp_path, make(), module=Foreign(), epochs=epochs - 1, **options)
        assert caught.value.hint.startswith(f"type trainer.max_epochs={epochs},")
    seen, module = [], Foreign()
    module.on_validation_epoch_end = lambda: seen.append(module.trainer.sanity_checking)
    fit(tmp_path, make(), module=module, epochs=epochs, **options)
    assert False in seen


def test_another_metric_than_one_of_validation_is_not_asked_about(tmp_path):
    class Logging(Foreign):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss)
            return loss

    _, trainer = fit(tmp_path, EarlyStopping("loss"), module=Logging(), max_steps=2)
    assert trainer.global_step == 2
