"""The table that is drawn while a search runs."""

from types import SimpleNamespace

from optuna.trial import TrialState, create_trial
from rich.console import Console

from lstmopt.search.progress import Progress


def test_brackets_are_shown_as_they_were_typed():
    one = create_trial(state=TrialState.FAIL, user_attrs={"overrides": ["callbacks=[default]"], "reason": "no [/x]"})
    progress = Progress(SimpleNamespace(n_trials=1, trials=lambda: [one]), {"val/loss": "minimize"})
    console = Console(width=200, record=True)
    console.print(progress._drawn())
    assert "callbacks=[default]" in (drawn := console.export_text()) and "failed (no [/x])" in drawn
