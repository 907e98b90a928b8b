"""Bad data files through the whole program, and damaged ones by the hundred."""

import io
import random
import warnings
import zipfile

import damaged_files
import numpy as np
import pytest

from lstmopt.data.csv_file import CSVFile
from lstmopt.data.npz import NPZ
from lstmopt.errors import DataError

ROWS = [f"{k},{k % 7},{(k * 5) % 11}" for k in range(400)]


def table(change=None, header="t,y,z"):
    rows = list(ROWS)
    for row, text in (change or {}).items():
        rows[row] = text
    return "\n".join([header, *rows]) + "\n"


CSV = ["data=csv", "data.path=a.csv", "data.target=y", "data.input_length=8", "data.horizon=2"]
# content, what else is typed, words of the answer
BAD = {
    "every row is shifted": ("t,y,z\n" + "0,1,2,3\n" * 99, [], ["line 2 has 4 fields", "header has 3"]),
    "no header": ("\n".join(ROWS), [], ["no names of columns", "header"]),
    "semicolons": (table().replace(",", ";"), [], ["commas"]),
    "decimal commas": (table({3: '3,"1,5",2'}), [], ["column y", "'1,5' in line 5", "point"]),
    "a name twice": (table(header="t,y,y"), [], ["more than one column y"]),
    "a column without a name": (table(header="t,y,"), [], ["column 3 has no name"]),
    "a short row": (table({3: "3,1"}), [], ["line 5 has 2 fields"]),
    "a long row": (table({3: "3,1,2,3"}), [], ["line 5 has 4 fields"]),
    "beyond float32": (table({3: "3,1e39,2"}), [], ["column y", "1e39 in line 5"]),
    "beyond float64": (table({3: "3,1e400,2"}), [], ["column y", "1e400 in line 5"]),
    "infinite": (table({3: "3,-inf,2"}), [], ["column y", "-inf in line 5"]),
    "a NUL": (table({3: "3,1\0,2"}), [], ["a.csv"]),
    "one cell of text": (table({3: "3,x,2"}), [], ["column y holds the text 'x' in line 5"]),
    "underscores": (table({3: "3,1_000,2"}), [], ["column y holds the text '1_000' in line 5"]),
    "latin-1": (table({3: "3,é,2"}).encode("latin-1"), [], ["not a CSV file in UTF-8"]),
    "utf-16": (table().encode("utf-16"), [], ["not a CSV file in UTF-8"]),
    "binary": (bytes(range(256)) * 9, [], ["not a CSV file"]),
    "empty": ("", [], ["is empty"]),
    "a header alone": ("t,y,z\n", [], ["no rows"]),
    "an unclosed quote": (table({3: '3,"1,2'}), [], ["not a CSV file"]),
    "missing values": (table({3: "3,,2", 9: "9,,2"}), [], ["column y has no number in lines 5, 11", "data.missing="]),
    "no number at all": (table(dict.fromkeys(range(400), "1,,2")), ["data.missing=ffill"], ["no number at all"]),
    "times that do not grow": (table({3: "99,1,2"}), ["data.time_column=t"], ["t does not grow in line 6"]),
    "no date": (
        "t,y,z\n2024-01-01,1,2\n2024-01-02,1,2\nsoon,2,3\n",
        ["data.time_column=t"],
        ["'soon' in line 4", "ISO"],
    ),
    "no such column": (table(), ["data.features=[zz]"], ["no column zz", "'data.features=[z]'"]),
    "no target": (table(), ["data.target=[]"], ["names no column", "type one of data.target=t, data.target=y"]),
    "a target twice": (table(), ["data.target=[y,y]"], ["data.target names y twice", "type data.target=y"]),
    "a feature twice": (table(), ["data.features=[z,z]"], ["data.features names z twice", "'data.features=[z]'"]),
    "a name with spaces": (table(header="t,a (EUR),z"), ["data.target=zzz"], ["'data.target=\"a (EUR)\"'"]),
    "a mistyped time column": ("day,y\n2024-01-01,1\n" * 9, ["data.time_column=dy"], ["type data.time_column=day"]),
    "a forgotten time column": ("day,y\n2024-01-01,1\n2024-01-02,2\n", [], ["type data.time_column=day"]),
    "no complete row": (
        table(dict.fromkeys(range(400), "1,2,")),
        ["data.missing=drop"],
        ["no row is complete: column z is empty", "'data.features=[t]'"],
    ),
    "no test part": (table(), ["data.test_fraction=0"], ["test part has 0 rows", "a larger data.test_fraction"]),
    "dates of another kind": (
        "t,y\n" + "".join(f"{k % 28 + 1:02d}/01/2024 00:00,{k}\n" for k in range(600)),
        ["data.time_column=t"],
        ["'01/01/2024 00:00' in line 2, which is no ISO date"],
    ),
    "too short": ("t,y,z\n" + "\n".join(ROWS[:9]), [], ["too short", "needs"]),
    "a folder": (None, ["data.path=my"], ["is a folder"]),
    "no file": (None, ["data.path=b.csv"], ["b.csv does not exist"]),
    "text that is none": (b"\xff\xfe\x00" * 99, ["data=text", "~data.target"], ["not text in UTF-8"]),
    "a .ts without data": ("@classLabel true 1 2\n", ["data=ucr"], ["no sequences after a line @data"]),
    "a .ts with words": ("@data\n1,2:a\n1,x:b\n", ["data=ucr"], ["line 3 holds a cell that is no number"]),
    "an .npz that is text": ("x", ["data=npz"], ["not an .npz file"]),
}


def typed(name):
    content, more, _ = BAD[name]
    if "data=ucr" in more:
        return ["data=ucr", "data.root=.", "data.name=a"], "ucr/a_TRAIN.ts"
    if "data=npz" in more or "data=text" in more:
        return [more[0], "data.path=a.bin"], "a.bin"
    return [*CSV, *more], "a.csv"


def test_there_are_enough():
    assert len(BAD) >= 30


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused(name, program):
    content, _, words = BAD[name]
    arguments, path = typed(name)
    (program.folder / "my").mkdir()
    if content is not None:
        target = program.folder / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    if path.endswith(".ts"):
        target.with_name("a_TEST.ts").write_text("@data\n1,2:a\n2,1:b\n")
    before = sorted(program.folder.rglob("*"))
    done = program(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert 2 <= len(done.stderr.splitlines()) <= 5, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert sorted(program.folder.rglob("*")) == before


def test_a_constant_column_is_said_and_no_error(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(table().replace("\n", ",5\n").replace("z,5", "z,c", 1))
    made = CSVFile(4, 0, str(path), "y", None, None, None, 8, 2, 1, 0.2, 0.2, None, "error")
    with pytest.warns(UserWarning, match="column c is constant"):
        made.setup()
    assert made.splits["train"].series[:, -1].eq(0).all()


def archive(path, **members):
    """A zip archive of .npy files whose bytes are given."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)


def npy(array, shape=None):
    """An .npy file, whose header may name another shape."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": array.dtype.str, "fortran_order": False, "shape": shape or array.shape}
    )
    return buffer.getvalue() + array.tobytes()


GOOD = np.arange(300.0).reshape(30, 10)
LABELS = np.arange(30) % 3
NPZ_FILES = {
    "bomb": (lambda: {"x": npy(np.zeros((100, 500_000), np.float32)), "y": npy(LABELS)}, "would take 200 MB"),
    "lying shape": (lambda: {"x": npy(GOOD, (10**6, 10**5)), "y": npy(LABELS)}, "8e"),
    "short": (lambda: {"x": npy(GOOD)[:-80], "y": npy(LABELS)}, "says it has the shape"),
    "no npy": (lambda: {"x": b"hello", "y": npy(LABELS)}, "plain numbers"),
    "no x": (lambda: {"y": npy(LABELS)}, "no array x"),
    "words": (lambda: {"x": npy(np.full((30, 10), "a")), "y": npy(LABELS)}, "no numbers"),
    "complex": (lambda: {"x": npy(GOOD * 1j), "y": npy(LABELS)}, "complex"),
    "NaN": (lambda: {"x": npy(np.where(GOOD == 25, np.nan, GOOD)), "y": npy(LABELS)}, "x[2, 5] is no finite number"),
    "other rows": (lambda: {"x": npy(GOOD), "y": npy(LABELS[:9])}, "9 rows"),
    "negative labels": (lambda: {"x": npy(GOOD), "y": npy(LABELS - 1)}, "label -1"),
    "lengths": (lambda: {"x": npy(GOOD), "y": npy(LABELS), "lengths": npy(LABELS)}, "lengths"),
}


def load(path):
    return NPZ(4, 0, str(path), 0.2, 0.2).load()


@pytest.mark.parametrize("name", NPZ_FILES)
def test_arrays_are_looked_at_before_memory_is_taken(name, tmp_path):
    members, words = NPZ_FILES[name]
    archive(tmp_path / "a.npz", **members())
    with pytest.raises(DataError) as caught:
        load(tmp_path / "a.npz")
    assert words in caught.value.problem and caught.value.hint


def test_objects_and_arrays_twice_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}] * 30), y=LABELS, allow_pickle=True)
    with pytest.raises(DataError, match="plain numbers"):
        load(tmp_path / "a.npz")
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "b.npz", "w") as file:
        warnings.simplefilter("ignore")
        for _ in range(2):
            file.writestr("x.npy", npy(GOOD))
    with pytest.raises(DataError, match="twice"):
        load(tmp_path / "b.npz")


@pytest.mark.parametrize("part", range(6))
def test_damaged_files_load_or_are_refused(part, tmp_path):
    """A slice of scripts/fuzz_data.py."""
    answers = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(60):
            kind, answer = damaged_files.one(random.Random(f"slice {part} {number}"), tmp_path)
            if not isinstance(answer, str):
                raise AssertionError(f"{kind} {number}") from answer
            answers.append(answer)
    assert 5 <= answers.count("loaded") <= 55
