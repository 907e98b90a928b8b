"""Keras Tuner's oracles on an Optuna study, without a run."""

import json
import os

os.environ["KERAS_BACKEND"] = "torch"

import optuna
import pytest

from lstmopt.errors import ConfigError
from lstmopt.search import keras_tuner
from lstmopt.search.keras_tuner import PROPOSAL, Exhausted, KerasTuner
from lstmopt.search.space import read

SPACE = {
    "kind": ["a", None, 3],
    "x": {"low": 1e-4, "high": 1e-1, "log": True},
    "y": {"low": 1, "high": 9, "when": {"kind": "a"}},
    "z": {"low": 12, "high": 96, "step": 12},
}
LACKING = [name for name in ("keras_tuner", "six", "sklearn") if not keras_tuner.importlib.util.find_spec(name)]
needed = pytest.mark.skipif(bool(LACKING), reason=f"needs pip install 'lstmopt[keras]': {LACKING} not installed")


def searched(folder, oracle, number, study=None, plain=SPACE, value=lambda values: values["x"]):
    """So many trials more, each proposed by a sampler that is made anew."""
    study = study or optuna.create_study()
    space = read(plain)
    for _ in range(number):
        study.sampler = KerasTuner(oracle, num_initial_points=4, max_epochs=3, seed=7)
        study.sampler.space, study.sampler.folder = space, folder
        trial = study.ask()
        study.tell(trial, value(space.suggest(trial)))
    return study


@needed
@pytest.mark.parametrize("oracle", ["bayesian", "hyperband", "random", "grid"])
def test_proposals_lie_in_the_space_and_a_restart_changes_none(oracle, tmp_path):
    whole = searched(tmp_path, oracle, 9)
    for trial in whole.trials:
        assert trial.params["kind"] in SPACE["kind"] and 1e-4 <= trial.params["x"] <= 1e-1
        assert trial.params["z"] in range(12, 97, 12)
        assert ("y" in trial.params) == (trial.params["kind"] == "a")
    parts = searched(tmp_path, oracle, 5)
    parts = searched(tmp_path, oracle, 4, study=parts)
    assert [trial.params for trial in parts.trials] == [trial.params for trial in whole.trials]


@needed
def test_a_grid_visits_each_point_once_and_then_has_no_more(tmp_path):
    plain = {"kind": ["a", "b"], "z": {"low": 1, "high": 3}, "y": {"low": 1, "high": 2, "when": {"kind": "b"}}}
    study = searched(tmp_path, "grid", 9, plain=plain, value=lambda values: values["z"])
    assert len({json.dumps(trial.params, sort_keys=True) for trial in study.trials}) == 9
    with pytest.raises(Exhausted):
        searched(tmp_path, "grid", 1, study=study, plain=plain)


@needed
def test_hyperband_promotes_the_best_of_a_round(tmp_path):
    """By hand: of 3 epochs and a factor of 3, three trials of one epoch, the best of them with three, two of three."""
    study = searched(tmp_path, "hyperband", 6)
    proposals = [trial.user_attrs[PROPOSAL] for trial in study.trials]
    assert [proposal["values"]["tuner/epochs"] for proposal in proposals] == [1, 1, 1, 3, 3, 3]
    best = min(range(3), key=lambda number: study.trials[number].value)
    assert [proposal["goes_on_from"] for proposal in proposals] == [None, None, None, best, None, None]
    assert study.trials[3].params == study.trials[best].params
    assert study.sampler.words(optuna.trial.Trial(study, study.trials[3]._trial_id)) == ["trainer.max_epochs=3"]


@needed
def test_the_checkpoint_of_the_earlier_round_is_taken_unless_there_is_one(tmp_path):
    study = searched(tmp_path, "hyperband", 4)
    before = study.trials[3].user_attrs[PROPOSAL]["goes_on_from"]
    source, target = (tmp_path / str(number) / "checkpoints" / "last.ckpt" for number in (before, 3))
    source.parent.mkdir(parents=True)
    source.write_bytes(b"first")
    trial = optuna.trial.Trial(study, study.trials[3]._trial_id)
    study.sampler.prepare(trial, lambda number: tmp_path / str(number))
    assert target.read_bytes() == b"first"
    source.write_bytes(b"second")
    study.sampler.prepare(trial, lambda number: tmp_path / str(number))
    assert target.read_bytes() == b"first"


def test_what_is_missing_is_told_with_the_line_to_type(monkeypatch):
    real = keras_tuner.importlib.util.find_spec
    monkeypatch.setattr(keras_tuner.importlib.util, "find_spec", lambda name: None if name == "six" else real(name))
    with pytest.raises(ConfigError, match=r"(?s)six.*pip install 'lstmopt\[keras\]'"):
        KerasTuner()
