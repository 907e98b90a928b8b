"""Any text file as a language."""

from collections import Counter
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.data.splits import Text
from lstmopt.errors import DataError

UNKNOWN = "<unk>"


class TextFile(DataModule):
    """Characters or words of a text; the vocabulary is that of the training part, anything else is `<unk>`.

    Args:
        batch_size: stretches of text per batch.
        seed: seed of the batch order.
        path: a text file in UTF-8.
        level: tokens are `chars` or `words` (split at white space).
        sequence_length: tokens per stretch.
        val_fraction: part of the text, before the test part.
        test_fraction: part of the text, its end; 0 tests on the validation part.

    Raises:
        DataError: the file is missing, not text, or too short.
    """

    def __init__(
        self,
        batch_size: int,
        seed: int,
        path: str,
        level: Literal["chars", "words"],
        sequence_length: int,
        val_fraction: float,
        test_fraction: float,
    ) -> None:
        super().__init__(batch_size, seed)
        self.path, self.level, self.sequence_length = path, level, sequence_length
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    def files(self) -> list[Path]:
        """See `DataModule.files`."""
        return [path] if (path := Path(self.path)).is_file() else []

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Read the text and number its tokens."""
        text = self._read()
        tokens = list(text) if self.level == "chars" else text.split()
        test_start = len(tokens) - round(len(tokens) * self.test_fraction)
        val_start = test_start - round(len(tokens) * self.val_fraction)
        self._check_parts(val_start, test_start, len(tokens))
        counts = Counter(tokens[:val_start])
        vocabulary = sorted(counts) if self.level == "chars" else [word for word, _ in counts.most_common()]
        vocabulary.append(UNKNOWN)
        number = {token: index for index, token in enumerate(vocabulary)}
        stream = torch.tensor([number.get(token, len(vocabulary) - 1) for token in tokens])
        splits: dict[str, Split] = {
            "train": self._part("train", stream[:val_start]),
            "val": self._part("val", stream[val_start:test_start]),
        }
        splits["test"] = self._part("test", stream[test_start:]) if self.test_fraction else splits["val"]
        spec = DataSpec(
            task="language_modeling",
            input_size=len(vocabulary),
            output_size=len(vocabulary),
            class_names=vocabulary,
            separator="" if self.level == "chars" else " ",
        )
        return spec, splits

    def _read(self) -> str:
        if not Path(self.path).is_file():
            kind = "is a folder" if Path(self.path).is_dir() else "does not exist"
            raise DataError(f"data.path={self.path} {kind}", "type data.path= and the path of a text file")
        text = read_text(Path(self.path))
        if not text:
            raise DataError(f"{self.path} is empty", "type data.path= and the path of a text file")
        return text

    def _check_parts(self, val_start: int, test_start: int, count: int) -> None:
        if count and val_start <= 0:
            raise DataError(
                f"data.val_fraction={self.val_fraction} and data.test_fraction={self.test_fraction} leave nothing to "
                "train on",
                "type data.val_fraction=0.05 data.test_fraction=0.05",
            )
        if val_start == test_start and not self.val_fraction:
            raise DataError("data.val_fraction=0 leaves nothing to validate on", "type data.val_fraction=0.05")

    def _part(self, name: str, stream: Tensor) -> Text:
        return stretches(stream, self.sequence_length, f"{self.path} is too short: its {name} part has")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark.

    Raises:
        DataError: it is something else.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error}", "save it as UTF-8") from None


def stretches(tokens: Tensor, length: int, too_few: str) -> Text:
    """Token numbers `[N]` as stretches of `length` inputs, each with the token after them.

    Raises:
        DataError: not one stretch; the message begins with `too_few`.
    """
    if len(tokens) <= length:
        raise DataError(
            f"{too_few} {len(tokens)} tokens and one stretch needs {length + 1}",
            "type a smaller data.sequence_length, or give more text",
        )
    return Text(tokens, length)
