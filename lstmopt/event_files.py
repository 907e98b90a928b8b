"""TensorBoard's event files, whose first failure ends the logging and not the run."""

from typing import Any

from torch.utils.tensorboard import SummaryWriter

from lstmopt.loggers import Guard


class EventFiles(SummaryWriter):
    """torch's `SummaryWriter` behind a guard.

    tensorboard writes in a thread of its own, which would keep an error and raise it at some later write, flush or
    close. The guard therefore stands between that thread and the file.

    Args:
        guard: is told of errors.
        log_dir: folder of the event files.
        options: of `SummaryWriter`.
    """

    def __init__(self, guard: Guard, log_dir: str, **options: Any) -> None:
        self.guard = guard
        super().__init__(log_dir, **options)

    def _get_file_writer(self) -> Any:
        """The file to write to; Lightning closes it after `fit`, and a test opens another one."""
        if self.guard.off:
            return _Nothing()
        if self.file_writer is not None:
            return self.file_writer
        if not self.guard(_try_out, self.guard.folder):
            return _Nothing()
        writer = super()._get_file_writer()
        records = writer.event_writer._async_writer._writer
        records._writer = _Guarded(records._writer, self.guard)
        return writer


class _Guarded:
    """A file that never raises."""

    def __init__(self, file: Any, guard: Guard) -> None:
        self.file, self.guard = file, guard

    def write(self, content: bytes) -> None:
        self.guard(self.file.write, content)

    def flush(self) -> None:
        self.guard(self.file.flush)

    def close(self) -> None:
        self.guard(self.file.close)


class _Nothing:
    """In the place of torch's `FileWriter` where nothing is written any more."""

    def add_event(self, *args: Any, **kwargs: Any) -> None:
        pass

    add_summary = add_graph = add_onnx_graph = add_event


def _try_out(folder: str) -> None:
    """Write a page, as the first event would be lost in a thread that nobody hears."""
    import tempfile
    from pathlib import Path

    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))
