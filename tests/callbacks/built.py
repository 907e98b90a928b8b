"""Small runs built from the program's config, and the data that they read."""

import numpy as np
from hydra import compose, initialize_config_dir

from lstmopt.build import build
from lstmopt.conf_dir import conf_dir


def parts(folder, *overrides):
    small = ["callbacks=none", "logger=none", "trainer.accelerator=cpu", "model.hidden_size=6", "trainer.max_epochs=3"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return build(compose("train", [*small, *overrides]), str(folder))


def text(folder):
    words = np.random.default_rng(0).choice(list("abcdefg "), 1200)
    (folder / "book.txt").write_text("".join(words))
    return ["data=text", f"data.path={folder}/book.txt", "data.sequence_length=12", "data.batch_size=4"]


def music(folder):
    rng = np.random.default_rng(0)
    x = rng.random((30, 40, 3), dtype=np.float32)
    np.savez(folder / "tags.npz", x=x, y=rng.integers(0, 4, (30, 40)), lengths=rng.integers(3, 41, 30))
    return ["data=npz", f"data.path={folder}/tags.npz", "task=tagging", "data.batch_size=4"]


def series(folder):
    return ["data=mackey_glass", "data.length=300", "data.input_length=23", "data.horizon=3"]


def classes(folder, pooling="last", unequal=True):
    rng = np.random.default_rng(0)
    x = rng.random((30, 40, 3), dtype=np.float32)
    lengths = {"lengths": rng.integers(1, 41, 30)} if unequal else {}
    np.savez(folder / "classes.npz", x=x, y=np.arange(30) % 3, **lengths)
    task = ["task=classification", f"task.pooling={pooling}"]
    return ["data=npz", f"data.path={folder}/classes.npz", *task, "data.batch_size=8"]


DATA = {
    "text": text,
    "music": music,
    "series": series,
    "classes": classes,
    "means": lambda folder: classes(folder, "mean"),
    "means of equal lengths": lambda folder: classes(folder, "mean", unequal=False),
}
