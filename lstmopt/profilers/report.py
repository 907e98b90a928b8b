"""Tables as text and as HTML, and where they go."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem } p { margin: .3rem 0 }
.advice { background: #fff6dc; border-left: 4px solid #d99a00; padding: .6rem 1rem; white-space: pre-wrap }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0 }
th, td { padding: .15rem 1.2rem .15rem 0; text-align: right; border-bottom: 1px solid #e5e5e5; white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere }
"""


class Table(NamedTuple):
    """A titled table; the first column is text, the others are numbers as text."""

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    note: str = ""

    def text(self) -> str:
        """Aligned columns."""
        lines = [self.title, *([self.note] if self.note else [])]
        if self.rows:
            cells: list[Sequence[str]] = [self.columns, *self.rows]
            widths = [max(len(row[k]) for row in cells) for k in range(len(self.columns))]
            for row in cells:
                first, *others = (
                    cell.ljust(width) if k == 0 else cell.rjust(width)
                    for k, (cell, width) in enumerate(zip(row, widths, strict=True))
                )
                lines.append("  ".join((first, *others)).rstrip())
        return "\n".join(lines)

    def html(self) -> str:
        """A heading, the note, a plain table."""
        parts = [f"<h2>{html.escape(self.title)}</h2>"]
        if self.note:
            parts.append(f"<p>{html.escape(self.note)}</p>")
        if self.rows:
            parts.append("<table><tr>" + "".join(f"<th>{html.escape(c)}</th>" for c in self.columns) + "</tr>")
            parts += ["<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in self.rows]
            parts.append("</table>")
        return "\n".join(parts)


def as_text(advice: list[str], tables: list[Table]) -> str:
    """Advice first."""
    return "\n\n".join(["\n".join(advice), *(table.text() for table in tables)])


def as_html(title: str, advice: list[str], tables: list[Table]) -> str:
    """One page that needs no other file."""
    body = "\n".join(table.html() for table in tables)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>{html.escape(title)}</h1>\n"
        f'<p class="advice">{html.escape(chr(10).join(advice))}</p>\n{body}\n</body></html>\n'
    )


def folder_of(trainer: pl.Trainer, dirpath: str | None) -> Path:
    """Where a profile is written: `dirpath`, or `profile` in the run folder."""
    folder = Path(dirpath or Path(trainer.default_root_dir) / "profile")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def trace_folder_of(trainer: pl.Trainer, dirpath: str | None) -> Path:
    """The same, but below TensorBoard's folder where there is one and nothing else is asked for."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and dirpath is None:
            return Path(logger.log_dir) / "profile"
    return folder_of(trainer, dirpath)


def write(trainer: pl.Trainer, dirpath: str | None, name: str, text: str, tag: str) -> None:
    """Write `name`, and the same text on TensorBoard under `tag`."""
    if not trainer.is_global_zero:
        return
    (folder_of(trainer, dirpath) / name).write_text(text.strip("\n") + "\n")
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            indented = "\n".join("    " + line for line in text.strip("\n").splitlines())  # Markdown: as it is
            logger.experiment.add_text(tag, indented, trainer.global_step)
