"""Spaces as they are written and typed, and the points of a grid."""

import itertools
import json
from collections import Counter
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from lstmopt.conf_dir import conf_dir
from lstmopt.errors import ConfigError
from lstmopt.quoting import quoted
from lstmopt.search.grid_sampler import GridSampler
from lstmopt.search.space import override, read, typed

WRITTEN = {
    "optimizer.momentum": {"low": 0.5, "high": 0.9, "step": 0.2, "when": {"optimizer": "sgd"}},
    "optimizer": ["adam", "sgd", "rmsprop"],
    "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "model.num_layers": {"low": 1, "high": 3},
}


def proposals(space, sampler, number):
    study = optuna.create_study(sampler=sampler)
    found = []
    for _ in range(number):
        trial = study.ask()
        found.append(space.suggest(trial))
        study.tell(trial, 0.0)
    return found


def test_conditions_hold_in_every_proposal():
    found = proposals(read(WRITTEN), optuna.samplers.RandomSampler(seed=0), 200)
    for one in found:
        assert ("optimizer.momentum" in one) == (one["optimizer"] == "sgd")
        assert 1e-4 <= one["optimizer.lr"] <= 1e-1 and one["model.num_layers"] in (1, 2, 3)
    assert {one["optimizer"] for one in found} == {"adam", "sgd", "rmsprop"}
    assert sum(one["optimizer.lr"] < 1e-2 for one in found) == pytest.approx(200 * 2 / 3, abs=30)  # in the logarithm


def test_a_condition_on_what_is_not_varied():
    written = {"optimizer.momentum": {"low": 0.5, "high": 0.9, "when": {"optimizer": ["sgd", "rmsprop"]}}}
    assert [
        *proposals(read(written | {"seed": [1]}, {"optimizer": "adam"}), optuna.samplers.RandomSampler(), 1)[0]
    ] == ["seed"]
    assert "optimizer.momentum" in proposals(read(written, {"optimizer": "sgd"}), optuna.samplers.RandomSampler(), 1)[0]
    with pytest.raises(ConfigError, match="depends on optimizer"):
        read(written)


def test_a_grid_is_every_combination_once():
    space = read(WRITTEN)
    expected = []
    for optimizer, rate, layers in itertools.product(("adam", "sgd", "rmsprop"), (1e-4, 0.00316228, 1e-1), (1, 2, 3)):
        one = {"optimizer": optimizer, "optimizer.lr": rate, "model.num_layers": layers}
        expected += [one | {"optimizer.momentum": m} for m in (0.5, 0.7, 0.9)] if optimizer == "sgd" else [one]
    grid = GridSampler(points_per_range=3, seed=1)
    grid.space = space
    found = [tuple(sorted(one.items())) for one in proposals(space, grid, len(grid.points()))]
    assert Counter(found) == Counter(tuple(sorted(one.items())) for one in expected)
    assert len(found) == 45
    other = GridSampler(points_per_range=3, seed=2)
    other.space = space
    assert other.points() != grid.points()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("optimizer=adam,sgd", ["adam", "sgd"]),
        ("model.hidden_size=16,32,64", [16, 32, 64]),
        ("model.num_layers=range(1,6)", [1, 2, 3, 4, 5]),
        ("model.num_layers=range(5,1,-1)", [2, 3, 4, 5]),
        ("model.dropout=range(0.3,0.6,0.1)", [0.3, 0.4, 0.5]),
        ("data.path='größe.csv','a, b.csv'", ["größe.csv", "a, b.csv"]),
        ("data.columns=['größe'],[b]", ['["größe"]', '["b"]']),
        ("data.input_length=range(12,49,12)", [12, 24, 36, 48]),
        ("model.dropout=range(0,0.5,0.25)", [0.0, 0.25]),
        ("model.dropout=interval(0,0.5)", [0.0, 0.25, 0.5]),
        ("optimizer.lr=tag(log,interval(1e-4,1e-2))", [1e-4, 1e-3, 1e-2]),
        ("model.hidden_size=tag(log,int(interval(8,128)))", [8, 32, 128]),
        ("optimizer.betas=[0.9,0.99],[0.8,0.9]", ["[0.9,0.99]", "[0.8,0.9]"]),
        ("optimizer.weight_decay=null,0.1", [None, 0.1]),
    ],
)
def test_hydras_words(word, expected):
    (dimension,) = typed([OverridesParser.create().parse_override(word)])
    assert dimension.values(3) == [pytest.approx(one) if isinstance(one, float) else one for one in expected]
    for value in dimension.values(3):  # what is typed for a value is read as that value
        parsed = OverridesParser.create().parse_override(override(dimension.key, value)).value()
        assert parsed == (json.loads(value) if str(value).startswith("[") else value)


def test_steps_that_are_small():
    (tiny,) = read({"optimizer.eps": {"low": 1e-14, "high": 5e-14, "step": 1e-14}}).dimensions
    assert tiny.values(3) == pytest.approx([1e-14, 2e-14, 3e-14, 4e-14, 5e-14], rel=1e-9, abs=0)


def test_a_step_of_one_that_is_written_is_a_step():
    (written,) = read({"model.num_layers": {"low": 1, "high": 6, "step": 1}}).dimensions
    (not_written,) = read({"model.num_layers": {"low": 1, "high": 6}}).dimensions
    assert written.values(3) == [1, 2, 3, 4, 5, 6] and not_written.values(3) == [1, 4, 6]


@pytest.mark.parametrize(
    "text",
    ["/home/Jürgen/runs", "a, b", "x=[1]{2}", 'say "so"', "back\\slash", "end\\", '\\"', "(~;&#')", "", "end\\\n"],
)
def test_a_quoted_text_is_read_as_it_is(text):
    parsed = OverridesParser.create().parse_override(f"hydra.sweep.dir={quoted(text)}")
    assert parsed.value() == text and not parsed.is_sweep_override()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"optimizer.lr": 3}, "write a list"),
        ({"optimizer.lr": {"low": 1}}, "write a list"),
        ({"optimizer.lr": {"low": 1, "high": 0.1}}, "goes from 1 to 0.1"),
        ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, "above 0 with log"),
        ({"optimizer.lr": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, "without log"),
        ({"optimizer.lr": {"low": 0.1, "hihg": 1}}, "write a list"),
        ({"optimizer.lr": []}, "write a list"),
        ({}, "nothing to vary"),
    ],
)
def test_what_cannot_be_read_is_told(written, said):
    with pytest.raises(ConfigError, match=said):
        read(written)


def test_all_mistakes_at_once():
    with pytest.raises(ConfigError) as told:
        read({"a.b": 3, "a.c": {"low": 2, "high": 1}})
    assert "a.b" in str(told.value) and "a.c" in str(told.value)


FILES = sorted(Path(conf_dir(), "search", "space").glob("*.yaml"))


def test_spaces_are_found():
    assert len(FILES) >= 3


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_space(file):
    space = read(OmegaConf.to_container(OmegaConf.load(file)), {"model": "lstm"})
    assert space.dimensions[0].key in ("optimizer", "optimizer.lr")  # what matters most comes first
    assert len(space.points(3)) >= 12


@pytest.mark.parametrize("model", sorted(Path(conf_dir(), "model").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_default_space_varies_the_dropout_of_each_model_that_has_it(model):
    space = read(
        OmegaConf.to_container(OmegaConf.load(Path(conf_dir(), "search", "space", "lstm.yaml"))), {"model": model.stem}
    )
    keys = {key for point in space.points(2) for key in point if key.startswith("model.")}
    options = OmegaConf.load(model)
    assert keys == {f"model.{key}" for key in ("hidden_size", "num_layers", "dropout") if key in options}


def test_probes_have_each_option_of_a_group_and_each_conditional_key():
    chained = {"low": 0.1, "high": 0.2, "when": {"optimizer.momentum": 0.7}}
    never = {"low": 1, "high": 2, "when": {"model": "awd_lstm"}}
    written = WRITTEN | {"optimizer.momentum": {"choices": [0.5, 0.7], "when": {"optimizer": ["lion", "sgd"]}}}
    space = read(written | {"optimizer.dampening": chained, "model.x": never}, {"model": "lstm"})
    found = space.probes({"optimizer", "model"})
    common = {"optimizer.lr": 1e-4, "model.num_layers": 1}
    sgd = common | {"optimizer": "sgd"}
    assert found == [
        common | {"optimizer": "adam"},
        sgd | {"optimizer.momentum": 0.5},
        common | {"optimizer": "rmsprop"},
        sgd | {"optimizer.momentum": 0.7, "optimizer.dampening": 0.1},
    ]
