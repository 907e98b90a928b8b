"""Every pair of options of the groups below trains three steps, or is refused by the table of combinations."""

import itertools
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy.io import savemat

from lstmopt import check, compat
from lstmopt.build import build
from lstmopt.conf_dir import conf_dir
from lstmopt.run import quiet

GROUPS = ("optimizer", "lr_scheduler", "gradient_clip", "precision", "memory", "model", "task", "loader")
SMALL = [
    "model.hidden_size=8",
    "data.batch_size=4",
    "logger=none",
    "callbacks=none",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=6",
    "trainer.limit_val_batches=1",
]
# warnings that are meant to be seen, and say why
EXPLAINED = (
    "Python loop",
    "step by step",
    "this CPU has no bfloat16 arithmetic",
)


def data_of(folder):
    """Small data for each task."""
    rng = np.random.default_rng(0)
    (folder / "book.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    x = rng.random((60, 12, 3), dtype=np.float32)
    lengths = rng.integers(5, 13, 60)
    np.savez(folder / "classes.npz", x=x, y=np.arange(60) % 3, lengths=lengths)
    np.savez(folder / "labels.npz", x=x, y=rng.integers(0, 4, (60, 12)), lengths=lengths)
    parts = {name: np.empty((1, 24), object) for name in ("traindata", "validdata", "testdata")}
    for tunes in parts.values():
        tunes[0] = [(rng.random((length, 88)) < 0.1).astype(np.float64) for length in rng.integers(6, 14, 24)]
    (folder / "polymusic").mkdir()
    savemat(folder / "polymusic" / "tiny.mat", parts)
    npz = ["data=npz", "data.val_fraction=0.2", "data.test_fraction=0.2"]
    return {
        "forecasting": ["data=mackey_glass", "data.length=300", "data.input_length=16", "data.horizon=3"],
        "language_modeling": ["data=text", f"data.path={folder}/book.txt", "data.sequence_length=10"],
        "classification": [*npz, f"data.path={folder}/classes.npz", "task=classification"],
        "tagging": [*npz, f"data.path={folder}/labels.npz", "task=tagging"],
        "polyphonic": ["data=polymusic", f"data.root={folder}", "data.name=tiny"],
    }


def options(group):
    return sorted(file.stem for file in Path(conf_dir(), group).glob("*.yaml"))


def composed(row, data):
    """The config of a row, a dict from group to option."""
    overrides = [*data[row.get("task", "forecasting")]]
    overrides += [f"{group}={option}" for group, option in row.items() if group != "task"]
    if row.get("memory") == "accumulate":
        overrides.append("callbacks.memory.batches=2")
    return compose("train", [*overrides, *SMALL])


def plain(cfg):
    return OmegaConf.to_container(cfg, resolve=False)


def both(base, one, other):
    """`base` with what `one` and what `other` changes: much faster than to compose each pair."""
    if one == base:
        return other
    if other == base or not (isinstance(one, dict) and isinstance(other, dict) and isinstance(base, dict)):
        return one
    return {
        key: both(base.get(key), one.get(key), other.get(key))
        for key in [*one, *(key for key in other if key not in one)]
        if not (key in base and (key not in one or key not in other))
    }


def pairs_of(row):
    return {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}


def covering_rows(choices, refused, draw):
    """Rows with an option of every group that hold each pair at least once and no refused one: greedily."""
    everything = {
        frozenset(((g, a), (h, b)))
        for g, h in itertools.combinations(choices, 2)
        for a in choices[g]
        for b in choices[h]
    }
    left = everything - refused
    rows = []
    while left:
        row = dict(min(left, key=sorted))
        for group in draw.sample(list(choices), len(choices)):
            if group in row:
                continue
            allowed = [o for o in choices[group] if not pairs_of(row | {group: o}) & refused]
            if not allowed:
                break
            row[group] = max(allowed, key=lambda o: (len(pairs_of(row | {group: o}) & left), draw.random()))
        assert pairs_of(row) & left
        left -= pairs_of(row)
        rows.append(row)
    return rows


def refused_pairs(choices, data):
    """The pairs that the table of combinations refuses, with its reasons."""
    alone = {(g, a): composed({g: a}, data) for g in GROUPS for a in choices[g]}
    assert not [problem for cfg in alone.values() for problem in check.problems(cfg)]
    alone = {key: plain(cfg) for key, cfg in alone.items()}
    base = plain(composed({}, data))
    typed = {"gradient_clip": "norm", "lr_scheduler": "none", "optimizer": "adam"}
    one_brings_the_other = {}  # an option that is typed is not brought along: each pair beside typed ones
    for g in ("gradient_clip", "lr_scheduler"):
        start = composed({"optimizer": typed["optimizer"], g: typed[g]}, data)
        optimizers = {a: plain(composed({"optimizer": a, g: typed[g]}, data)) for a in choices["optimizer"]}
        others = {a: plain(composed({"optimizer": typed["optimizer"], g: a}, data)) for a in choices[g]}
        one_brings_the_other[g] = plain(start), optimizers, others

    def pair(g, a, h, b):
        if g == "optimizer" and h in one_brings_the_other:
            start, optimizers, others = one_brings_the_other[h]
            return both(start, optimizers[a], others[b])
        return both(base, alone[g, a], alone[h, b])

    refused, every = {}, []
    for g, h in itertools.combinations(GROUPS, 2):
        for a, b in itertools.product(choices[g], choices[h]):
            every.append((g, a, h, b))
            problems = compat.problems(OmegaConf.create(pair(g, a, h, b)))
            if problems:
                refused[frozenset(((g, a), (h, b)))] = problems
    for g, a, h, b in random.Random(0).sample(every, 12):  # what was put together is what Hydra composes
        assert pair(g, a, h, b) == plain(composed({g: a, h: b}, data)), (g, a, h, b)
    return refused


def reasons_hold(choices, refused):
    """Every refusal says why and what to type, and they are the exception."""
    assert sum(map(len, choices.values())) > 35
    for pair, problems in refused.items():
        for problem in problems:
            why, instead = problem.split("\n")
            assert len(why.split()) >= 4 and instead.startswith("  type "), (sorted(pair), problem)
    assert len(refused) < 0.4 * sum(len(choices[g]) * len(choices[h]) for g, h in itertools.combinations(GROUPS, 2))


@pytest.fixture
def configs():
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        yield


def test_every_pair_trains_or_is_refused(configs, tmp_path):
    choices, data = {group: options(group) for group in GROUPS}, data_of(tmp_path)
    refused = refused_pairs(choices, data)
    reasons_hold(choices, refused)
    rows = covering_rows(choices, set(refused), random.Random(0))
    failures = []
    for row in rows:
        cfg = composed(row, data)
        problems = compat.problems(cfg)
        if problems:  # a conflict of three: it has a reason too, but its pairs must be shown elsewhere
            failures.append((row, f"refused as a whole: {problems}"))
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            quiet()
            try:
                parts = build(cfg, str(tmp_path))
                parts.trainer.fit(parts.module, datamodule=parts.datamodule)
            except Exception as error:
                failures.append((row, f"{type(error).__name__}: {error}"))
                continue
        seen = {str(w.message) for w in caught if not any(text in str(w.message) for text in EXPLAINED)}
        if seen:
            failures.append((row, f"warnings: {seen}"))
        if parts.trainer.global_step < 3 or not all(p.isfinite().all() for p in parts.module.parameters()):
            failures.append((row, f"{parts.trainer.global_step} steps"))
        loss = parts.trainer.callback_metrics.get("val/loss")
        if loss is None or not loss.isfinite():
            failures.append((row, f"val/loss {loss}"))
    shown = "\n".join(f"{row}\n   {what}" for row, what in failures[:20])
    assert not failures, f"{len(failures)} of {len(rows)} rows:\n{shown}"
