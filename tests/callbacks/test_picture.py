"""When the picture is drawn; in a module that has no task it says that there is none."""

from foreign import fit
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lstmopt.callbacks.picture import Picture


def test_a_foreign_module_is_told_once_that_nothing_is_drawn(tmp_path, capsys):
    fit(tmp_path, Picture(1), epochs=3, logger=TensorBoardLogger(tmp_path))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("picture: ")]
    assert lines == ["picture: Foreign is no LSTMModule and has no task to draw"]


def test_one_picture_in_an_epoch_that_is_due_beside_its_first_validation(program):
    words = ["data=mackey_glass", "data.length=330", "data.input_length=16", "data.horizon=3", "data.batch_size=16"]
    words += ["model.hidden_size=8", "trainer.max_epochs=3", "trainer.val_check_interval=0.25"]
    done = program(*words, "callbacks.picture.every_n_epochs=2", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    events = EventAccumulator(str(program.folder / "run"), size_guidance={"images": 0, "scalars": 0}).Reload()
    validated = [point.step for point in events.Scalars("val/loss")]
    assert len(validated) == 12  # four in each of three epochs
    assert [point.step for point in events.Images("val/picture")] == [validated[0], validated[8]]
