"""The Penn Treebank as a language of words."""

from collections import Counter
from pathlib import Path

import torch

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.data.text_file import UNKNOWN, read_text, stretches
from lstmopt.errors import DataError

PARTS = {"train": "ptb.train.txt", "val": "ptb.valid.txt", "test": "ptb.test.txt"}
END = "<eos>"


class PennTreebank(DataModule):
    """Words of the Wall Street Journal in three files, the ends of lines among them; the vocabulary is the training
    file's, anything else is `<unk>`. The text is licensed by the Linguistic Data Consortium, so that it is read where
    the user has it and never downloaded.

    Args:
        batch_size: stretches of text per batch.
        seed: seed of the batch order.
        root: folder of the data sets, holding `ptb/ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt`.
        sequence_length: words per stretch.

    Raises:
        DataError: files are missing, not text, or too short.

    Reference: Marcus, Santorini & Marcinkiewicz 1993; the 10,000 words of Mikolov et al. 2010.
    """

    def __init__(self, batch_size: int, seed: int, root: str, sequence_length: int) -> None:
        super().__init__(batch_size, seed)
        self.root, self.sequence_length = root, sequence_length

    def files(self) -> list[Path]:
        """See `DataModule.files`."""
        return [path for name in PARTS.values() if (path := Path(self.root) / "ptb" / name).is_file()]

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Read the files and number their words."""
        folder = Path(self.root) / "ptb"
        missing = [name for name in PARTS.values() if not (folder / name).is_file()]
        if missing:
            raise DataError(
                f"there is no {', '.join(missing)} in {folder.absolute()}, and its licence forbids a download",
                "put the files there, or type data.root=FOLDER that holds ptb/",
            )
        words = {part: self._words(folder / name) for part, name in PARTS.items()}
        vocabulary = [word for word, _ in Counter(words["train"]).most_common()]
        if UNKNOWN not in vocabulary:
            vocabulary.append(UNKNOWN)
        number = {word: index for index, word in enumerate(vocabulary)}
        splits: dict[str, Split] = {}
        for part, found in words.items():
            tokens = torch.tensor([number.get(word, number[UNKNOWN]) for word in found])
            splits[part] = stretches(tokens, self.sequence_length, f"{folder / PARTS[part]} is too short: it has")
        size = len(vocabulary)
        return DataSpec("language_modeling", size, size, class_names=vocabulary, separator=" "), splits

    @staticmethod
    def _words(path: Path) -> list[str]:
        return [word for line in read_text(path).splitlines() for word in (*line.split(), END)]
