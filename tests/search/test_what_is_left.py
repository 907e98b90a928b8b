"""`sweep.json` and the last lines of a search, however it ends."""

import json
import signal
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from lstmopt import results
from lstmopt.errors import ConfigError, Interrupted
from lstmopt.search import report, search
from lstmopt.search.study import Study

SMALL = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "callbacks.picture=null", "logger=none"]


def left(folder):
    return json.loads((folder / "sweep.json").read_text())


def study(folder, worker=""):
    made = Study(
        f"sqlite:///{folder}/study.db",
        "test",
        ["minimize"],
        lambda number: optuna.samplers.RandomSampler(seed=number),
        optuna.pruners.NopPruner(),
        9,
        5,
        60.0,
        folder / ".study.lock",
        lambda number: 0,
    )
    made.worker = worker or made.worker
    return made


def sweep(folder, by_seeds=False, **settings):
    settings = {"seeds_per_trial": 1, "max_failure_rate": 1.0, "cluster": None, "timeout": None} | settings
    return SimpleNamespace(
        folder=folder,
        directions={"val/loss": "minimize"},
        search=SimpleNamespace(**settings),
        fixed=[],
        by_seeds=by_seeds,
        run_folder=lambda number, k: folder / str(number),
        study=lambda: study(folder),
    )


def test_stopped_trials_have_their_own_status_and_those_of_others_are_left_out(tmp_path):
    mine, other = study(tmp_path), study(tmp_path, worker="elsewhere:1:0")
    done, stopped, lost = (mine.take() for _ in range(3))
    other.take()
    mine.tell(done, TrialState.COMPLETE, [0.5])
    mine.release(stopped)
    mine.release(lost, lost=True)
    mine.take()  # one of them again
    found = report.keep(mine, sweep(tmp_path))
    assert [(trial["number"], trial["status"]) for trial in found["trials"]] == [(0, "completed"), (2, "stopped")]
    assert left(tmp_path) == found and found["best"]["number"] == 0


def test_a_signal_waits_until_the_file_is_whole(tmp_path, monkeypatch):
    write = results.write

    def signalled(*arguments):
        signal.raise_signal(signal.SIGTERM)
        write(*arguments)

    monkeypatch.setattr(results, "write", signalled)
    came = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: came.append((tmp_path / "sweep.json").is_file()))
    try:
        report.keep(study(tmp_path), sweep(tmp_path))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [True] and left(tmp_path)["best"] is None


def ends_with(error):
    """A search that completes a trial, begins another, and then ends so."""

    def work(study, sweep, launcher, cluster):
        study.tell(study.take(), TrialState.COMPLETE, [0.25])
        study.take().set_user_attr("overrides", ["model.hidden_size=3"])
        if isinstance(error, int):
            signal.raise_signal(error)
        raise error

    return work


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (signal.SIGTERM, Interrupted),
        (signal.SIGINT, Interrupted),
        (Interrupted(15), Interrupted),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ConfigError("a process of the search ended"), ConfigError),
    ],
)
def test_however_a_search_ends(error, told, table, tmp_path, monkeypatch, capsys):
    """A signal between two trials too, where nobody but the search can answer it."""
    monkeypatch.setattr(search, "_work", ends_with(error))
    with pytest.raises(told) as raised:
        search.run(sweep(tmp_path, report=table), None)
    if isinstance(error, signal.Signals):
        assert raised.value.signum == error and "the same command" in raised.value.hint
    assert [trial["status"] for trial in left(tmp_path)["trials"]] == ["completed", "stopped"]
    said = capsys.readouterr().out
    assert "best: " in said and ("2 runs" in said) == table


def test_a_search_without_a_report_leaves_sweep_json(program):
    words = ["search=random", "search.n_trials=1", "optimizer.lr=1e-3,1e-2", "search.study=s", *SMALL]
    done = program(*words, "search.report=false")
    folder = program.folder / "multirun" / "s"
    assert done.returncode == 0, done.stderr
    found = left(folder)
    assert found["trials"][0]["status"] == "completed" and found["best"]["number"] == 0
    assert f"best: {' '.join(found['best']['overrides'])}" in done.stdout and "runs" not in done.stdout
    assert not list(folder.glob("*.png")) and not (folder / "report.md").exists()
    done = program(*words)
    assert "no pictures:    they need two completed trials, and there is one" in done.stdout
    done = program(*words, "search.n_trials=3", "search/pruner=none")
    assert done.returncode == 0 and "no pictures" not in done.stdout, done.stderr
