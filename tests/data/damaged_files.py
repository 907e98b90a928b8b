"""Valid data files, and ways to damage them."""

import io
import random

import numpy as np
import pytest
import torch

from lstmopt.data import table
from lstmopt.data.csv_file import CSVFile
from lstmopt.data.npz import NPZ
from lstmopt.data.text_file import TextFile
from lstmopt.data.ucr import UCR
from lstmopt.errors import UserError

ODD = ["1e39", "1e400", "-inf", "nan", "NaT", "now", "", " ", "1_000", "0x1F", "١٢", "1,5", '"', '""', "\0", "\ufeff"]
ODD += [
    "\u2028",
    "\x85",
    "'",
    ";",
    "\t",
    "9" * 400,
    "-",
    "+1",
    "1e",
    "e5",
    "true",
    "None",
    "=1+1",
    "\r",
    "\n",
    ",",
    ":",
]


def csv(rng):
    lines = ["time,a,b,c"]
    lines += [
        f"2024-01-{1 + k // 24:02d} {k % 24:02d}:00:00,{rng.random():.4f},{k % 7},{rng.gauss(0, 1):.3f}"
        for k in range(80)
    ]
    return "\n".join(lines).encode() + b"\n"


def npz(rng):
    generator = np.random.default_rng(rng.randrange(2**32))
    buffer = io.BytesIO()
    arrays = {"x": generator.normal(size=(30, 6, 2)), "y": generator.integers(0, 3, 30)}
    if rng.random() < 0.5:
        arrays["lengths"] = generator.integers(1, 7, 30)
    if rng.random() < 0.2:
        strange = [np.array([object()] * 3), np.zeros(0), np.array(1.0), np.zeros((30, 2, 2, 2))]
        arrays[rng.choice(["x", "y", "lengths"])] = rng.choice([*strange, np.full(30, "a"), np.eye(30) * 1j])
    (np.savez if rng.random() < 0.5 else np.savez_compressed)(buffer, **arrays)
    return buffer.getvalue()


def ts(rng):
    lines = ["@problemName x", "@classLabel true 1 2", "@data"]
    lines += [",".join(f"{rng.gauss(0, 1):.3f}" for _ in range(8)) + f":{1 + k % 2}" for k in range(24)]
    return "\n".join(lines).encode() + b"\n"


def text(rng):
    return " ".join(rng.choice(["to", "be", "or", "not", "é", "日本"]) for _ in range(700)).encode()


KINDS = {"csv": csv, "npz": npz, "ts": ts, "text": text}


def damage(content, rng):
    """Up to three damages."""
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(content) + 1)
        way = rng.randrange(8)
        if way == 0:
            content = content[:at]
        elif way == 1 and content:
            place = rng.randrange(len(content))
            content = content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
        elif way == 2:
            content = content[:at] + rng.randbytes(rng.randrange(1, 20)) + content[at:]
        elif way == 3:
            content = content[:at] + rng.choice(ODD).encode() + content[at:]
        elif way == 4:
            lines = content.split(b"\n")
            line = rng.randrange(len(lines))
            others = [[], [lines[line]] * 2, [b""], [lines[line] + b",1"], [lines[line][:3]]]
            lines[line : line + 1] = rng.choice(others)
            content = b"\n".join(lines)
        elif way == 5:
            cells = content.split(b",")
            cells[rng.randrange(len(cells))] = rng.choice(ODD).encode()
            content = b",".join(cells)
        elif way == 6:
            old, new = rng.choice([(b",", b";"), (b"\n", b"\r"), (b".", b",")])
            content = content.replace(old, new)
        else:
            wide = content.decode(errors="replace").encode("utf-16")
            content = rng.choice([b"", b"\xff\xfe" + content, content * 2, content[::-1], wide])
    return content


def one(rng, folder):
    """Damage a file and read it: its kind, and `loaded`, `refused`, or the exception that should not be."""
    kind = rng.choice(list(KINDS))
    content = damage(KINDS[kind](rng), rng)
    path = folder / {"csv": "a.csv", "npz": "a.npz", "ts": "ucr/a_TRAIN.ts", "text": "a.txt"}[kind]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    if kind == "ts":
        path.with_name("a_TEST.ts").write_bytes(ts(random.Random(0)))
    missing = rng.choice(["error", "drop", "ffill", "interpolate"])
    shared = {"batch_size": 4, "seed": 0, "val_fraction": 0.2}
    made = {
        "csv": lambda: CSVFile(
            **shared,
            path=str(path),
            target="a",
            features=None,
            time_column="time",
            group_column=None,
            input_length=4,
            horizon=2,
            stride=1,
            test_fraction=0.2,
            season=None,
            missing=missing,
        ),
        "npz": lambda: NPZ(**shared, path=str(path), test_fraction=0.2),
        "ts": lambda: UCR(**shared, root=str(folder), name="a"),
        "text": lambda: TextFile(
            **shared, path=str(path), level=rng.choice(["chars", "words"]), sequence_length=8, test_fraction=0.2
        ),
    }[kind]()
    try:
        made.setup()
        for loader in (made.train_dataloader(), made.val_dataloader(), made.test_dataloader()):
            for batch in loader:
                if batch.x.is_floating_point() and not batch.x.isfinite().all():
                    raise AssertionError("a value that is no number was let in")
    except UserError as error:
        return kind, "refused" if len(str(error).splitlines()) <= 5 else AssertionError(f"too long: {error}")
    except Exception as error:
        return kind, error
    if kind == "csv":
        whole = made.splits["train"].series
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(table, "_read_whole", lambda path: None)
            made.splits = {}
            made.setup()
        if not torch.equal(whole, made.splits["train"].series):
            return kind, AssertionError("read as a whole it is another series than cell by cell")
    return kind, "loaded"
