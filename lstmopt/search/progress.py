"""The trials of a search while it runs."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from lstmopt.search.study import Study

SHOWN = 12  # trials in the table
STATUS = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


class Progress:
    """A table that is drawn anew every second: running trials, the best and the last ones, time left.

    Where the output is not a terminal, one line for each trial that ends.

    Args:
        study: whose trials.
        directions: of the objectives, by name.
    """

    def __init__(self, study: Study, directions: Mapping[str, str]) -> None:
        self.study, self.directions = study, directions
        self.console = Console(file=sys.stdout)
        self.began = time.monotonic()
        self.told = {trial.number for trial in study.trials() if trial.state.is_finished()}
        self.before = len(self.told)
        self.live: Live | None = None

    def __enter__(self) -> "Progress":
        if self.before:
            self.console.print(f"going on: {self.before} of {self.study.n_trials} trials have ended", highlight=False)
        if self.console.is_terminal:
            self.live = Live(
                get_renderable=self._drawn,
                console=self.console,
                refresh_per_second=1,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self.live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.refresh()
        if self.live is not None:
            self.live.stop()

    def refresh(self) -> None:
        """Tell of trials that have ended since."""
        if self.live is not None:
            return
        for trial in self.study.trials():
            if trial.state.is_finished() and trial.number not in self.told:
                self.told.add(trial.number)
                shown = " ".join(map(str, self._row(trial)))
                print(f"{shown}  ({len(self.told)} of {self.study.n_trials}{self._left()})", flush=True)

    def _left(self) -> str:
        done = len(self.told) - self.before
        left = self.study.n_trials - len(self.told)
        if done < 1 or left < 1:
            return ""
        return f", about {(time.monotonic() - self.began) / done * left / 60:.1f} minutes left"

    def _row(self, trial: FrozenTrial) -> list[str]:
        values = trial.values or list(trial.intermediate_values.values())[-1:]
        shown = " ".join(f"{value:.4g}" for value in values)
        overrides = " ".join(trial.user_attrs.get("overrides", []))
        reason = trial.user_attrs.get("reason", "")
        seconds = trial.duration.total_seconds() if trial.duration else time.time() - _start(trial)
        return [
            f"trial {trial.number}",
            f"{STATUS[trial.state]}{f' ({reason})' if reason else ''}",
            shown,
            overrides,
            f"epoch {max(trial.intermediate_values, default=0)}",
            f"{seconds:.0f} s",
        ]

    def _drawn(self) -> Group:
        trials = self.study.trials()
        self.told = {trial.number for trial in trials if trial.state.is_finished()}
        sign = 1 if next(iter(self.directions.values())) == "minimize" else -1
        ranked = sorted((t for t in trials if t.values), key=lambda t: sign * t.values[0])
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        ended = [trial for trial in trials if trial.state.is_finished() and trial not in ranked[:1]]
        table = Table("trial", "status", ", ".join(self.directions), "overrides", "epochs", "time", expand=True)
        for trial in [*ranked[:1], *running, *reversed(ended)][:SHOWN]:
            style = "bold green" if ranked and trial is ranked[0] else "dim" if trial.state == TrialState.FAIL else ""
            table.add_row(*map(escape, self._row(trial)), style=style)
        bar = Bar(
            TextColumn("{task.completed}/{task.total} trials"), BarColumn(), TextColumn(self._left().lstrip(", "))
        )
        bar.add_task("", total=self.study.n_trials, completed=len(self.told))
        return Group(table, bar)


def _start(trial: FrozenTrial) -> float:
    return trial.datetime_start.timestamp() if trial.datetime_start else time.time()
