"""Every other data option, on small files made here or on what it generates."""

import gzip
import struct

import numpy as np
import pytest
import torch
from scipy.io import savemat

from lstmopt.data import download
from lstmopt.data.adding import Adding
from lstmopt.data.co2 import CO2
from lstmopt.data.copy_memory import CopyMemory
from lstmopt.data.etth1 import ETTh1
from lstmopt.data.mackey_glass import MackeyGlass, integrate
from lstmopt.data.mnist import MNIST
from lstmopt.data.npz import NPZ
from lstmopt.data.penn_treebank import PennTreebank
from lstmopt.data.polymusic import PolyMusic
from lstmopt.data.text_file import TextFile
from lstmopt.errors import DataError


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    def refuse(url, timeout):
        raise OSError("no network in tests")

    monkeypatch.setattr(download.urllib.request, "urlopen", refuse)


def every(part):
    return part.batch(torch.arange(len(part)))


def test_co2_is_the_record():
    spec, splits = CO2(64, 0, 104, 26).load()
    raw = splits["train"].series[:, 0] * spec.std[0] + spec.mean[0]
    assert len(raw) == 2284
    assert raw[[0, 1, -1]].tolist() == pytest.approx([316.1, 317.3, 371.5], abs=1e-3)
    assert float(raw[6]) == pytest.approx((316.9 + 317.5) / 2, abs=1e-3)  # a week without measurement
    assert spec.season == 52 and spec.unit == "ppm"
    train, test = every(splits["train"]), every(splits["test"])
    assert len(train.x) == 1598 - 130 + 1 and len(test.x) == 343 - 26 + 1


@pytest.mark.parametrize("level", ["chars", "words"])
def test_text(level, tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("ab ba " * 40 + "zz " * 20)
    spec, splits = TextFile(4, 0, str(path), level, 5, 0.1, 0.1).load()
    expected = [" ", "a", "b", "<unk>"] if level == "chars" else ["ab", "ba", "<unk>"]
    assert spec.class_names == expected
    train = every(splits["train"])
    text = [spec.class_names[t] for t in train.x[0].tolist()]
    assert spec.separator.join(text) == ("ab ba" if level == "chars" else "ab ba ab ba ab")
    assert train.y[0, :-1].tolist() == train.x[0, 1:].tolist()
    if level == "chars":  # z is not in the training part
        assert 3 in every(splits["test"]).x


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "does not exist"), (b"", "is empty"), (b"\xff\xfe\x00", "UTF-8"), (b"abc", "short")],
)
def test_bad_texts(content, expected, tmp_path):
    path = tmp_path / "t.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=expected):
        TextFile(4, 0, str(path), "chars", 5, 0.1, 0.1).load()


def test_penn_treebank(tmp_path):
    folder = tmp_path / "ptb"
    folder.mkdir()
    with pytest.raises(DataError, match="ptb.train.txt, ptb.valid.txt, ptb.test.txt"):
        PennTreebank(4, 0, str(tmp_path), 3).load()
    (folder / "ptb.train.txt").write_text(" the cat sat \n the <unk> ran the end \n")
    (folder / "ptb.valid.txt").write_text("a cat ran\n")
    (folder / "ptb.test.txt").write_text("the cat\n")
    with pytest.raises(DataError, match="ptb.test.txt is too short: it has 3 tokens"):
        PennTreebank(4, 0, str(tmp_path), 3).load()
    (folder / "ptb.test.txt").write_text("the cat sat\n")
    spec, splits = PennTreebank(4, 0, str(tmp_path), 3).load()
    assert spec.class_names == ["the", "<eos>", "cat", "sat", "<unk>", "ran", "end"] and spec.input_size == 7
    train = every(splits["train"])
    assert train.x.tolist() == [[0, 2, 3], [1, 0, 4], [5, 0, 6]]
    assert train.y.tolist() == [[2, 3, 1], [0, 4, 5], [0, 6, 1]]
    val = every(splits["val"])
    assert val.x.tolist() == [[4, 2, 5]] and val.y.tolist() == [[2, 5, 1]]
    (folder / "ptb.valid.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"ptb\.valid\.txt is not text in UTF-8"):
        PennTreebank(4, 0, str(tmp_path), 3).load()


def idx(array):
    return gzip.compress(struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.mark.parametrize(("features", "steps"), [(28, 28), (1, 784)])
def test_mnist(features, steps, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "mnist").mkdir()
    images = {
        "train": rng.integers(0, 256, (5010, 28, 28), np.uint8),
        "test": rng.integers(0, 256, (7, 28, 28), np.uint8),
    }
    for part, array in images.items():
        (tmp_path / "mnist" / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(array))
        labels = (np.arange(len(array)) % 10).astype(np.uint8)
        (tmp_path / "mnist" / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    spec, splits = MNIST(4, 0, str(tmp_path), features).load()
    assert [len(splits[part]) for part in ("train", "val", "test")] == [10, 5000, 7]
    test = every(splits["test"])
    assert test.x.shape == (7, steps, features)
    pixels = (images["test"][3].reshape(steps, features) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(test.x[3], pixels, rtol=1e-4, atol=1e-5)
    assert test.y.tolist() == list(range(7))
    (tmp_path / "mnist" / "test-labels-idx1-ubyte.gz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a gzipped idx"):
        MNIST(4, 0, str(tmp_path), features).load()


def test_polymusic(tmp_path):
    (tmp_path / "polymusic").mkdir()
    rng = np.random.default_rng(0)
    tunes = np.empty((1, 3), dtype=object)
    for k, frames in enumerate((5, 9, 7)):
        tunes[0, k] = (rng.random((frames, 88)) > 0.9).astype(np.float64)
    savemat(tmp_path / "polymusic" / "Toy.mat", {f"{p}data": tunes for p in ("train", "valid", "test")})
    spec, splits = PolyMusic(2, 0, str(tmp_path), "Toy").load()
    batch = every(splits["val"])
    assert spec.output_size == 88 and batch.lengths.tolist() == [4, 8, 6]
    np.testing.assert_array_equal(batch.x[1], tunes[0, 1][:-1])
    np.testing.assert_array_equal(batch.y[2, :6], tunes[0, 2][1:])
    (tmp_path / "polymusic" / "Toy.mat").write_bytes(b"nothing at all" * 20)
    with pytest.raises(DataError, match="not a .mat file"):
        PolyMusic(2, 0, str(tmp_path), "Toy").load()


def test_etth1_has_the_customary_split(tmp_path):
    (tmp_path / "ett").mkdir()
    rows = "\n".join(f"d,{k},{k % 24}" for k in range(17_420))
    (tmp_path / "ett" / "ETTh1.csv").write_text("date,HUFL,OT\n" + rows + "\n")
    spec, splits = ETTh1(32, 0, str(tmp_path), None, 96, 24).load()
    assert [len(splits[p]) for p in ("train", "val", "test")] == [8640 - 119, 2880 - 23, 2880 - 23]
    first = splits["test"].batch(torch.tensor([0])).y[0, 0, 0] * spec.std[0] + spec.mean[0]
    assert float(first) == pytest.approx(16 * 720, rel=1e-4)


@pytest.mark.parametrize(
    "option",
    [lambda r: ETTh1(1, 0, r, None, 9, 9), lambda r: MNIST(1, 0, r, 28), lambda r: PolyMusic(1, 0, r, "JSB_Chorales")],
)
def test_what_is_not_there_and_cannot_be_downloaded(option, tmp_path):
    with pytest.raises(DataError) as caught:
        option(str(tmp_path)).load()
    assert str(tmp_path) in caught.value.problem and "no network" in caught.value.problem
    assert "https://" in caught.value.hint and "data.root=" in caught.value.hint


def test_a_download_is_checked(tmp_path, monkeypatch):
    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def read(self):
            return b"content"

    monkeypatch.setattr(download.urllib.request, "urlopen", lambda url, timeout: Answer())
    with pytest.raises(DataError, match="another file"):
        download.fetch(str(tmp_path), "a/b.txt", "https://x", "0" * 64)
    assert not list(tmp_path.glob("**/*.*"))
    sha = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"  # sha256sum of "content"
    assert download.fetch(str(tmp_path), "a/b.txt", "https://x", sha).read_bytes() == b"content"


def test_adding():
    spec, splits = Adding(4, 0, 30, 200).load()
    x, y, *_ = every(splits["train"])
    assert torch.allclose((x[..., 0] * x[..., 1]).sum(1), y[:, 0, 0])
    assert (x[:, :15, 1].sum(1) == 1).all() and (x[:, 15:, 1].sum(1) == 1).all()
    assert float(((y - 1) ** 2).mean()) == pytest.approx(1 / 6, rel=0.25)
    assert spec.target_index == [] and spec.season == 0
    assert torch.equal(every(Adding(4, 0, 30, 200).load()[1]["test"]).x, every(splits["test"]).x)


def test_copy_memory():
    spec, splits = CopyMemory(4, 0, 7, 50).load()
    x, y, *_ = every(splits["train"])
    tokens = x.argmax(-1)
    assert x.shape == (50, 27, 10) and (x.sum(-1) == 1).all()
    assert torch.equal(tokens[:, :10], y[:, -10:]) and (y[:, :-10] == 0).all()
    assert ((tokens[:, :10] >= 1) & (tokens[:, :10] <= 8)).all()
    assert (tokens[:, -11] == 9).all() and (tokens[:, 10:-11] == 0).all() and (tokens[:, -10:] == 0).all()
    assert spec.output_size == 9


def test_mackey_glass_follows_its_equation():
    series = integrate(17.0, 400, 0)
    assert series.min() > 0.2 and series.max() < 1.5 and series[200:].std() > 0.1
    # without the delayed term the equation is linear: x' = -0.1 x + const; check by Simpson's rule over two units
    t = np.arange(100, 380)
    delayed = lambda k: 0.2 * series[k - 17] / (1 + series[k - 17] ** 10) - 0.1 * series[k]  # noqa: E731
    change = (delayed(t - 1) + 4 * delayed(t) + delayed(t + 1)) / 3
    np.testing.assert_allclose(series[t + 1] - series[t - 1], change, atol=2e-3)
    assert MackeyGlass(4, 0, 17.0, 300, 16, 4).load()[0].season == 1


def test_npz_task_by_labels(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (40, 6, 2))
    path = tmp_path / "a.npz"
    for y, task, out in (
        (rng.integers(0, 3, 40), "classification", 3),
        (rng.integers(0, 4, (40, 6)), "tagging", 4),
        (rng.normal(size=40), "forecasting", 1),
        (rng.normal(size=(40, 2)), "forecasting", 2),
        (rng.normal(size=(40, 5, 2)), "forecasting", 2),
    ):
        np.savez(path, x=x, y=y, lengths=rng.integers(1, 7, 40))
        spec, splits = NPZ(4, 0, str(path), 0.2, 0.2).load()
        assert (spec.task, spec.output_size) == (task, out)
        assert [len(splits[part]) for part in ("train", "val", "test")] == [24, 8, 8]
        assert torch.allclose(every(splits["train"]).x.flatten(0, 1).mean(0), torch.zeros(2), atol=0.5)
    assert spec.horizon == 5


def test_npz_keeps_x_and_y_together(tmp_path):
    x = np.arange(40.0)[:, None].repeat(5, axis=1)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40))
    _, splits = NPZ(4, 0, str(tmp_path / "a.npz"), 0.2, 0.2).load()
    for part in splits.values():
        batch = every(part)
        assert torch.equal(batch.x[:, 0, 0].argsort(), batch.y.argsort())


@pytest.mark.parametrize("padding", [0.0, 1e6])
def test_npz_padding_counts_nowhere(padding, tmp_path):
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(3, 2, (40, 6, 2)), rng.integers(1, 7, 40)
    labels = rng.integers(0, 4, (40, 6))
    beyond = np.arange(6) >= lengths[:, None]
    x[beyond], labels[beyond] = padding, -1
    np.savez(tmp_path / "a.npz", x=x, y=labels, lengths=lengths)
    spec, splits = NPZ(4, 0, str(tmp_path / "a.npz"), 0.2, 0.2).load()
    assert spec.task == "tagging" and spec.output_size == 4
    train = [every(splits["train"]).x[k, :n].double().numpy() for k, n in enumerate(splits["train"].lengths)]
    steps = np.concatenate(train)  # sequence by sequence, without what stands beyond their lengths
    np.testing.assert_allclose(steps.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(steps.std(0, ddof=1), 1, atol=1e-5)
    for part in splits.values():
        for sequence, n in zip(part.x, part.lengths, strict=True):
            assert (sequence[n:] == 0).all() and (sequence[:n] != 0).all()


def test_npz_targets_as_wide_as_the_input_is_long_are_no_labels(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(40, 6))
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(40, 6)), y=y, lengths=np.full(40, 2))
    spec, splits = NPZ(4, 0, str(tmp_path / "a.npz"), 0.2, 0.2).load()
    rows = torch.cat([every(part).y[:, 0] for part in splits.values()]) * torch.tensor(spec.std)
    rows = (rows + torch.tensor(spec.mean)).numpy()
    np.testing.assert_allclose(np.sort(rows, axis=0), np.sort(y, axis=0), rtol=1e-4, atol=1e-5)


NPZ_BAD = {
    "no_y": ({"x": np.zeros((9, 3))}, "no array y"),
    "objects": ({"x": np.zeros((9, 3)), "y": np.array([{}] * 9)}, "plain numbers"),
    "words": ({"x": np.zeros((9, 3)), "y": np.array(["a"] * 9)}, "no numbers"),
    "nan": ({"x": np.full((9, 3), np.nan), "y": np.zeros(9, int)}, r"x\[0, 0\] is no finite"),
    "too_large": ({"x": np.full((9, 3), 1e39), "y": np.zeros(9, int)}, "no finite"),
    "rows": ({"x": np.zeros((9, 3)), "y": np.zeros(8, int)}, "y has 8 rows and x 9"),
    "flat": ({"x": np.zeros(9), "y": np.zeros(9, int)}, "shape"),
    "negative": ({"x": np.zeros((9, 3)), "y": np.full(9, -1)}, "label -1"),
    "lengths": ({"x": np.zeros((9, 3)), "y": np.zeros(9, int), "lengths": np.full(9, 4)}, "within 1 and 3"),
    "few": ({"x": np.zeros((2, 3)), "y": np.zeros(2, int)}, "too few"),
}


@pytest.mark.parametrize("name", NPZ_BAD)
def test_bad_npz(name, tmp_path):
    arrays, expected = NPZ_BAD[name]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=expected):
        NPZ(4, 0, str(tmp_path / "a.npz"), 0.2, 0.2).load()


def test_npz_that_is_none(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    for path in (tmp_path / "a.npz", tmp_path / "b.npz"):
        with pytest.raises(DataError):
            NPZ(4, 0, str(path), 0.2, 0.2).load()
