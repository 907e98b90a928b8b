"""Where the time of a step goes, by torch's profiler."""

import pytorch_lightning as pl

from lstmopt.profilers import report, summary
from lstmopt.profilers.advice import Facts, advice
from lstmopt.profilers.recording import Recording
from lstmopt.profilers.step_profile import StepProfile


class PyTorchProfile(StepProfile):
    """Profile a few steps and leave `profile/summary.txt`: what holds the training up, and the figures behind it.

    The summary names the bottleneck (a slow loader, reading values of tensors in every step, a tiny batch, callbacks),
    and has the time in data, forward, backward, optimizer with clipping, callbacks and the rest of a step; operators
    per second and how much of the machine they use; the operators that take most time; the largest memory. It is on
    TensorBoard too, the shares as scalars `profile/<phase>`. The trace `profile/<worker>.pt.trace.json.gz`, below
    TensorBoard's folder where there is one, is for https://ui.perfetto.dev and for TensorBoard's profiler plugin.

    Time is taken in steps that torch's profiler does not slow down, after those that it records. A run that is
    shorter, or that breaks, is summed up as far as it went. Validation is no part of a step.

    Args:
        wait: steps that are not looked at.
        warmup: steps that warm the profiler up.
        active: steps that are recorded.
        timed: steps after them whose time is taken.
        max_mb: largest size of the trace, MB; a larger one is not kept, and the summary says how many steps would fit.
        dirpath: folder; None is `profile` in the run folder.
    """

    def __init__(
        self,
        wait: int = 5,
        warmup: int = 2,
        active: int = 5,
        timed: int = 10,
        max_mb: float = 50.0,
        dirpath: str | None = None,
    ) -> None:
        super().__init__([("wait", wait), ("warmup", warmup), ("record", active), ("time", timed)], dirpath)
        self.max_mb = max_mb

    def write_report(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Trace, summary, scalars."""
        facts = summary.facts_of(self, trainer, pl_module)
        tables: list[report.Table] = []
        if facts is not None:
            tables += [summary.phase_table(self, facts), summary.computation_table(facts)]
            self._log(trainer, facts)
        if self.recording is not None:
            tables.append(summary.sync_table(self.recording))
        tables += [summary.operator_table(self), summary.memory_table()]
        if self.recording is not None:
            tables.append(self._trace(trainer, self.recording))
        lines = advice(facts) if facts is not None else ["No step was finished."]
        report.write(trainer, self.dirpath, "summary.txt", report.as_text(lines, tables), "profile")

    def _trace(self, trainer: pl.Trainer, recording: Recording) -> report.Table:
        path, size = recording.export(report.trace_folder_of(trainer, self.dirpath), self.max_mb)
        if path is not None:
            return report.Table("Trace", note=f"{path}, {size:.1f} MB; open it at https://ui.perfetto.dev")
        fits = int(recording.steps * self.max_mb / size)
        instead = f"profiler.active={fits} fits" if fits else f"profiler.max_mb={size + 1:.0f} keeps it"
        return report.Table("Trace", note=f"Not kept: {recording.steps} steps have {size:.1f} MB. {instead}.")

    def _log(self, trainer: pl.Trainer, facts: Facts) -> None:
        scalars = {f"profile/{name}": facts.share(*phases) for name, phases in summary.ROWS.items()}
        if facts.utilisation is not None:
            scalars["profile/utilisation"] = facts.utilisation
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=trainer.global_step)
