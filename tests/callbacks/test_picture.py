"""The picture in a module that has no task says that there is none."""

from foreign import fit
from pytorch_lightning.loggers import TensorBoardLogger

from lstmopt.callbacks.picture import Picture


def test_a_foreign_module_is_told_once_that_nothing_is_drawn(tmp_path, capsys):
    fit(tmp_path, Picture(1), epochs=3, logger=TensorBoardLogger(tmp_path))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("picture: ")]
    assert lines == ["picture: Foreign is no LSTMModule and has no task to draw"]
