"""What torch.utils.bottleneck was: Python, operators and memory in one look."""

import cProfile
import pstats
from pathlib import Path

import pytorch_lightning as pl

from lstmopt.profilers import report, summary
from lstmopt.profilers.advice import advice
from lstmopt.profilers.report import Table
from lstmopt.profilers.step_profile import Stage, StepProfile


class Bottleneck(StepProfile):
    """Profile some steps in three ways and leave `profile/bottleneck.txt` and `profile/bottleneck.html`.

    Some steps run under cProfile (Python functions), others under torch's profiler (operators, what they allocate),
    others under neither (the time of the phases), so that none distorts another. The advice and the tables are those
    of `PyTorchProfile`; the HTML file is one page that needs no other file. A run that is shorter, or that breaks, is
    told as far as it went.

    Args:
        wait: steps that are not looked at.
        warmup: steps that warm torch's profiler up.
        active: steps under cProfile, and as many under torch's profiler.
        timed: steps after them whose time is taken.
        dirpath: folder; None is `profile` in the run folder.
    """

    profile_memory = True

    def __init__(
        self, wait: int = 5, warmup: int = 2, active: int = 5, timed: int = 5, dirpath: str | None = None
    ) -> None:
        stages: list[tuple[Stage, int]] = [("wait", wait), ("python", active), ("warmup", warmup), ("record", active)]
        super().__init__([*stages, ("time", timed)], dirpath)
        self._python: cProfile.Profile | None = None
        self._problem = ""

    def enter(self, stage: Stage | None) -> None:
        """cProfile on."""
        if stage == "python":
            self._python, self._problem = cProfile.Profile(), ""
            try:
                self._python.enable()
            except ValueError as error:  # a debugger or a coverage tool is there
                self._python, self._problem = None, str(error)

    def leave(self, stage: Stage | None) -> None:
        """cProfile off."""
        if stage == "python" and self._python is not None:
            self._python.disable()

    def write_report(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Text and page."""
        facts = summary.facts_of(self, trainer, pl_module)
        lines = advice(facts) if facts is not None else ["No step was finished."]
        tables: list[Table] = []
        if facts is not None:
            tables += [summary.phase_table(self, facts), summary.computation_table(facts)]
        tables.append(self._functions())
        tables.append(summary.operator_table(self))
        if self.recording is not None:
            tables += [summary.sync_table(self.recording)]
        tables += [summary.allocation_table(self), summary.memory_table()]
        report.write(trainer, self.dirpath, "bottleneck.txt", report.as_text(lines, tables), "bottleneck")
        if trainer.is_global_zero:
            page = report.as_html("Where the time of a training step goes", lines, tables)
            (report.folder_of(trainer, self.dirpath) / "bottleneck.html").write_text(page, encoding="utf-8")
        self._python = None

    def _functions(self) -> Table:
        steps = len(self.steps_of("python"))
        if self._python is None or not steps:
            reason = self._problem or f"the run has {len(self.phases.steps)} steps"
            return Table("Python functions", note=f"None: {reason}, and cProfile begins after {self.before('python')}.")
        stats = pstats.Stats(self._python).stats  # type: ignore[attr-defined]
        found = sorted(stats.items(), key=lambda item: -item[1][2])[: summary.TOP]
        rows = [
            (_named(*function), f"{calls / steps:.1f}", f"{1e3 * own / steps:.3f}", f"{1e3 * whole / steps:.3f}")
            for function, (_, calls, own, whole, _) in found
        ]
        note = f"Per step, mean of {steps} steps under cProfile, which slows Python down."
        return Table("Python functions", ("function", "calls", "Self ms", "with callees ms"), rows, note)


def _named(file: str, line: int, function: str) -> str:
    """`folder/file.py:12 function`; built-in functions have no file."""
    return function if file == "~" else f"{'/'.join(Path(file).parts[-2:])}:{line} {function}"
