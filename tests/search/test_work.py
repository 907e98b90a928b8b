"""What becomes of a trial whose launch breaks."""

from types import SimpleNamespace

import pytest

from lstmopt.errors import ConfigError, Interrupted
from lstmopt.launched import BASIC
from lstmopt.search import work


def config(launcher):
    return SimpleNamespace(hydra=SimpleNamespace(launcher=SimpleNamespace(_target_=launcher)))


@pytest.mark.parametrize(
    ("error", "counts"),
    [(RuntimeError("no room"), True), (Interrupted(15), False), (KeyboardInterrupt(), False)],
    ids=repr,
)
def test_a_launch_that_breaks_counts_as_a_try_and_a_signal_does_not(error, counts, monkeypatch):
    released = []
    study = SimpleNamespace(release=lambda trial, lost: released.append(lost))
    space = SimpleNamespace(suggest=lambda trial: {})
    sweep = SimpleNamespace(
        config=config(BASIC),
        space=space,
        search=SimpleNamespace(seeds_per_trial=1),
        overrides=lambda *_: [[]],
        words=lambda _: [],
    )
    trial = SimpleNamespace(number=0, study=SimpleNamespace(sampler=None), set_user_attr=lambda *_: None)

    def breaks(*arguments):
        raise error

    monkeypatch.setattr(work, "_launch_seed", breaks)
    with pytest.raises(type(error)):
        work._launch(study, sweep, None, [trial])
    assert released == [counts]


def test_in_a_batch_a_trial_that_cannot_be_composed_fails_alone(monkeypatch):
    """joblib and submitit would give up the batch."""
    told, launched = {}, []

    def composed(words):
        if words == ["a=1"]:
            raise ConfigError("there is no key a", "type b=1")

    def launch(sweep, launcher, trials, k, jobs, ended):
        for trial in trials:
            launched.append(trial.number)
            ended[trial.number].append(work.Outcome(work.TrialState.COMPLETE, [0.5]))
        return set()

    monkeypatch.setattr(work, "_launch_seed", launch)
    sweep = SimpleNamespace(
        config=config("joblib"),
        space=SimpleNamespace(suggest=lambda trial: trial.number),
        search=SimpleNamespace(seeds_per_trial=2),
        overrides=lambda number, values: [[], []],
        words=lambda number: [f"a={number}"],
        composed=composed,
    )
    study = SimpleNamespace(tell=lambda trial, state, *_, reason="": told.update({trial.number: (state.name, reason)}))
    sampler = SimpleNamespace(sampler=None)
    batch = [SimpleNamespace(number=n, study=sampler, set_user_attr=lambda *_: None) for n in range(3)]
    work._launch(study, sweep, None, batch)
    assert told == {0: ("COMPLETE", ""), 1: ("FAIL", "there is no key a"), 2: ("COMPLETE", "")}
    assert launched == [0, 2, 0, 2]
