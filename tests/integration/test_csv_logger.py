"""The rows of `metrics.csv` of a run that was stopped and went on are those of one that was not."""

import csv
import signal

import killing

from lstmopt.loggers import RunCSV

TIMED = ("throughput/samples_per_second", "throughput/gflops_per_second")
WORDS = ["data=mackey_glass", "data.length=330", "data.input_length=16", "data.horizon=3", "data.batch_size=16"]
WORDS += ["model.hidden_size=8", "callbacks.picture=null", "trainer.log_every_n_steps=1", "logger=csv"]


def rows(folder):
    """Times as whether there is one."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {name: bool(value) if name in TIMED else value for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def test_a_run_that_goes_on_keeps_its_rows(program):
    words, stopped = [*WORDS, "trainer.max_epochs=4"], program.folder / "stopped"
    assert program(*words, "hydra.run.dir=whole").returncode == 0
    done = program(*WORDS, "trainer.max_epochs=2", "hydra.run.dir=stopped")  # to its end, test included
    assert done.returncode == 0 and "deleted" not in done.stderr
    log, kill = program.folder / "log.txt", ("signal", "training_step", 2, 6, signal.SIGINT)
    assert killing.run([*words, f"hydra.run.dir={stopped}"], log, kill) == 130
    assert {row["step"] for row in rows(stopped)} == {str(step) for step in range(35)}
    assert program(*words, "hydra.run.dir=stopped").returncode == 0
    assert rows(stopped) == rows(program.folder / "whole")
    assert [row["step"] for row in rows(stopped) if row[TIMED[0]]] == ["13", "27", "41", "55"]


def test_a_row_that_was_cut_off_is_left_out(tmp_path):
    before = RunCSV(str(tmp_path))
    for step in range(15):
        before.log_metrics({"a": step / 3, "z": step}, step)
    before.save()
    path = tmp_path / "metrics.csv"
    whole = path.read_text()
    path.write_text(whole[: whole.rindex("14,")] + "1")  # the step of the last row
    after = RunCSV(str(tmp_path), purge_step=14)
    after.log_metrics({"a": 14 / 3, "z": 14}, 14)
    after.save()
    assert path.read_text() == whole
    assert not RunCSV(str(tmp_path)).experiment.metrics and not path.exists()  # of a run that begins anew
