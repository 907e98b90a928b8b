"""What becomes of a trial whose launch breaks."""

from types import SimpleNamespace

import pytest

from lstmopt.errors import Interrupted
from lstmopt.search import work


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
        space=space, search=SimpleNamespace(seeds_per_trial=1), overrides=lambda *_: [[]], words=lambda _: []
    )
    trial = SimpleNamespace(number=0, study=SimpleNamespace(sampler=None), set_user_attr=lambda *_: None)

    def breaks(*arguments):
        raise error

    monkeypatch.setattr(work, "_launch_seed", breaks)
    with pytest.raises(type(error)):
        work._launch(study, sweep, None, [trial])
    assert released == [counts]
