"""All loaders give the same batches in the same order."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from lstmopt.build import make
from lstmopt.checkpoint_file import write
from lstmopt.conf_dir import conf_dir
from lstmopt.data.splits import Windows
from lstmopt.errors import ConfigError
from lstmopt.loaders.auto import Auto
from lstmopt.loaders.cached import Cached
from lstmopt.loaders.device import Device
from lstmopt.loaders.resident import Resident
from lstmopt.loaders.workers import Workers

LOADERS = sorted(path.stem for path in Path(conf_dir(), "loader").glob("*.yaml"))
DATA = {
    "co2": [],
    "adding": ["data.n_train=200", "data.sequence_length=12"],
    "csv": [
        "data.path={folder}/series.csv",
        "data.target=b",
        "data.group_column=g",
        "data.input_length=4",
        "data.horizon=3",
    ],
    "text": ["data.path={folder}/book.txt", "data.sequence_length=5"],
    "npz": ["data.path={folder}/arrays.npz"],
}


@pytest.fixture
def folder(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    rows = [f"{g},{a:.4f},{b:.4f}" for g in "xy" for a, b in rng.normal(size=(80, 2))]
    (tmp_path / "series.csv").write_text("g,a,b\n" + "\n".join(rows) + "\n")
    (tmp_path / "book.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    lengths = rng.integers(1, 10, 60)
    np.savez(tmp_path / "arrays.npz", x=rng.normal(size=(60, 9, 2)), y=rng.integers(0, 3, 60), lengths=lengths)
    return tmp_path


def datamodule(folder, data, loader, *more):
    overrides = [f"data={data}", f"loader={loader}", *(one.format(folder=folder) for one in DATA[data]), *more]
    if loader in ("cached", "auto"):
        overrides.append(f"loader.folder={folder}/cache")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", overrides)
    found = make(cfg.data)
    found.loader = make(cfg.loader)
    found.setup()
    return found


def batches(found):
    for loader in (found.train_dataloader(), found.val_dataloader(), found.test_dataloader()):
        for epoch in range(2):
            loader.indices.set_epoch(epoch)
            yield from loader


def test_there_are_five():
    assert len(LOADERS) == 5


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("loader", [name for name in LOADERS if name != "resident"])
def test_the_same_batches_in_the_same_order(loader, data, folder):
    expected = list(batches(datamodule(folder, data, "resident")))
    assert len(expected) >= 6
    for _ in range(2):  # the cache is written, then read
        given = list(batches(datamodule(folder, data, loader)))
        assert len(given) == len(expected)
        for one, other in zip(given, expected, strict=True):
            for a, b in zip(one, other, strict=True):
                assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_the_parts_of_a_cache_share_their_series(folder):
    for _ in range(2):
        splits = datamodule(folder, "co2", "cached").splits
        assert len({splits[part].series.data_ptr() for part in splits}) == 1


def test_a_cache_is_read_instead_of_the_files(folder):
    datamodule(folder, "csv", "cached")
    (kept,) = (folder / "cache").iterdir()
    content = torch.load(kept, weights_only=True)
    content["spec"]["unit"] = "from the cache"
    write(kept, lambda file: torch.save(content, file))
    assert datamodule(folder, "csv", "cached").spec.unit == "from the cache"
    assert datamodule(folder, "csv", "cached", "data.batch_size=5").spec.unit == "from the cache"


@pytest.mark.parametrize("change", ["data.input_length=5", "data.val_fraction=0.2", "data.seed=1", "a cell"])
def test_another_setting_or_content_is_another_cache(change, folder):
    datamodule(folder, "csv", "cached")
    more = [change]
    if change == "a cell":
        path, more = folder / "series.csv", []
        path.write_text(path.read_text().replace("x,", "z,", 1))
    datamodule(folder, "csv", "cached", *more)
    assert len(list((folder / "cache").iterdir())) == 2


def load(folder):
    found = datamodule(folder, "text", "cached")
    assert len(found.splits["train"]) > 10


def test_two_processes_may_write_the_same_cache(folder):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=load, args=(folder,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.suffix for path in (folder / "cache").iterdir()] == [".pt"]


def test_data_that_do_not_name_their_files_are_not_cached(folder):
    found = datamodule(folder, "co2", "resident")
    found.files = lambda: None
    with pytest.raises(ConfigError, match="which files it reads"):
        Cached(str(folder)).load(found)


def test_a_split_of_ones_own_is_not_cached(folder, monkeypatch):
    class Mine(Windows):
        pass

    found = datamodule(folder, "co2", "resident")
    spec, splits = found.load()
    mine = {name: Mine(**split.arguments()) for name, split in splits.items()}
    monkeypatch.setattr(type(found), "load", lambda self: (spec, mine))
    with pytest.raises(ConfigError, match="Mine, a split of your own"):
        Cached(str(folder / "cache")).load(found)
    assert not list(folder.glob("cache/*"))


def test_a_cache_needs_a_home_or_a_folder(folder, monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", none)
    with pytest.raises(ConfigError, match="no home directory"):
        Cached()
    assert Cached(str(folder)).folder == folder


def test_a_folder_that_cannot_be_written_to_is_said(folder):
    (folder / "cache").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written"):
        datamodule(folder, "co2", "cached")


def test_device_copies_what_parts_share_once():
    series = torch.randn(50, 2)
    parts = [Windows(series, [numbers], 4, 2, [1]) for numbers in (range(20), range(25, 40))]
    loader, there = Device(), torch.device("meta")
    placed = [loader.place(part, there) for part in parts]
    assert placed[0].series is placed[1].series and placed[0].series.device == there
    assert placed[0].ranges == parts[0].ranges and len(placed[1]) == 15
    for batch in loader.batches(placed[0], 4, True, 0):
        assert batch.x.device == there and batch.x.shape[1:] == (4, 2) and batch.y.shape[1:] == (2, 1)


@pytest.mark.parametrize("make", [Resident, Workers, Auto, lambda: Workers(pin_memory=True)])
def test_batches_in_main_memory_are_pinned_for_a_gpu(make, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1, 1))  # no room on it
    part = Windows(torch.randn(50, 2), [range(20)], 4, 2, [1])
    loader = make()
    always = getattr(loader, "pin_memory", None) is True
    for device, pinned in (("cuda", True), ("cpu", always)):
        placed = loader.place(part, torch.device(device))
        assert placed is part and loader.batches(placed, 4, True, 0).pin_memory is pinned


def test_auto_takes_the_cache_where_memory_is_short(folder, capsys):
    found = datamodule(folder, "csv", "resident")
    found.splits, found.loader = {}, Auto(part_of_memory=1e-12, folder=str(folder / "cache"))
    found.setup()
    assert "loader: cached, as" in capsys.readouterr().out and len(list((folder / "cache").iterdir())) == 1
    found.splits, found.loader = {}, Auto(folder=str(folder / "cache"))
    found.setup()
    found.train_dataloader()
    assert capsys.readouterr().out == "loader: resident, the data in main memory\n"
