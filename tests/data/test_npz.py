"""Arrays of one's own: what is constant, what lies beyond a sequence's end, which parts and which task they make."""

import warnings

import numpy as np
import pytest
import torch

from lstmopt.data.npz import NPZ
from lstmopt.errors import ConfigError, DataError
from lstmopt.tasks.classification import Classification
from lstmopt.tasks.forecasting import Forecasting
from lstmopt.tasks.tagging import Tagging

RNG = np.random.default_rng(0)


def load(folder, val_fraction=0.2, test_fraction=0.2, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return NPZ(4, 0, str(folder / "a.npz"), val_fraction, test_fraction).load()


def every(part):
    return part.batch(torch.arange(len(part)))


def train_rows(folder):
    """Which sequences train, by numbers that say so."""
    numbers = np.arange(40.0)
    x = np.repeat(numbers[:, None], 2, axis=1)
    spec, splits = load(folder, x=x, y=numbers)
    return {part: (every(splits[part]).y.flatten() * spec.std[0] + spec.mean[0]).round().long() for part in splits}


@pytest.mark.parametrize("value", [0.5, 0.1, -3e6, 0.0])
def test_a_feature_constant_in_training_keeps_its_scale(value, tmp_path):
    rows = train_rows(tmp_path)
    x = np.stack([RNG.normal(3, 2, (40, 6)), np.full((40, 6), value)], axis=-1)
    x[rows["test"][0], :, 1] += 0.25 * max(abs(value), 1)
    with pytest.warns(UserWarning, match="^x1 is constant over the training sequences$"):
        _, splits = load(tmp_path, x=x, y=np.arange(40) % 3)
    x = every(splits["test"]).x[..., 1]
    np.testing.assert_allclose(x[0], 0.25 * max(abs(value), 1), rtol=1e-2)
    for part in (every(splits["train"]).x[..., 1], every(splits["val"]).x[..., 1], x[1:]):
        assert part.abs().max() <= 1e-6 * max(abs(value), 1)


def test_features_of_small_numbers_are_no_constants(tmp_path):
    x = RNG.normal(0, 1e-8, (40, 6, 2)) + [0, 1e-7]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, splits = load(tmp_path, x=x, y=np.arange(40) % 3)
    np.testing.assert_allclose(every(splits["train"]).x.flatten(0, 1).numpy().std(0), 1, rtol=1e-2)


def test_a_target_constant_in_training_keeps_its_scale(tmp_path):
    rows = train_rows(tmp_path)
    y = np.stack([RNG.normal(3, 2, 40), np.full(40, 0.5)], axis=-1)
    y[rows["val"][0], 1] = 0.6
    with pytest.warns(UserWarning, match="^y1 is constant over the training sequences$"):
        spec, splits = load(tmp_path, x=RNG.normal(size=(40, 6)), y=y)
    assert spec.std[1] == 1 and spec.mean[1] == pytest.approx(0.5)
    assert every(splits["val"]).y[0, 0, 1] == pytest.approx(0.1, rel=1e-4)


def test_many_constants_are_one_warning(tmp_path):
    with pytest.warns(UserWarning) as said:
        load(tmp_path, x=np.ones((40, 6, 70)), y=np.arange(40) % 3)
    assert [str(one.message) for one in said] == [
        "x0, x1, x2, x3, x4 and 65 more are constant over the training sequences"
    ]


@pytest.mark.parametrize("padding", [np.nan, np.inf, 1e39])
def test_padding_may_be_no_number(padding, tmp_path):
    x, lengths, y = RNG.normal(3, 2, (40, 6, 2)), RNG.integers(1, 7, 40), np.arange(40) % 3
    beyond = np.arange(6) >= lengths[:, None]
    _, zeros = load(tmp_path, x=np.where(beyond[..., None], 0, x), y=y, lengths=lengths)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, splits = load(tmp_path, x=np.where(beyond[..., None], padding, x), y=y, lengths=lengths)
    assert all(torch.equal(every(splits[part]).x, every(zeros[part]).x) for part in zeros)
    x[3, lengths[3] - 1, 1] = np.nan
    with pytest.raises(DataError, match=rf"x\[3, {lengths[3] - 1}, 1\] is no finite number"):
        load(tmp_path, x=np.where(beyond[..., None], padding, x), y=y, lengths=lengths)


@pytest.mark.parametrize("lengths", [np.full(40, "a"), np.full(40, 2j), np.full(40, 2.0), np.full((40, 1), 2)], ids=str)
def test_lengths_that_are_none_are_refused(lengths, tmp_path):
    with pytest.raises(DataError, match="lengths"):
        load(tmp_path, x=np.ones((40, 6)), y=np.arange(40) % 3, lengths=lengths)


def test_numbers_that_are_no_classes_are_refused(tmp_path):
    y = np.arange(60)
    y[7] = 900_000_000
    with pytest.raises(DataError, match="labels up to 900000000") as caught:
        load(tmp_path, x=np.ones((60, 6)), y=y)
    assert "save y as floats" in caught.value.hint


@pytest.mark.parametrize(
    ("fractions", "problem", "hint"),
    [
        ((0.2, 0.0), "data.test_fraction=0.0 of 300 sequences is none", "type data.test_fraction=0.2"),
        ((0.0, 0.2), "data.val_fraction=0.0 of 300 sequences is none", "type data.val_fraction=0.2"),
        ((0.2, 0.001), "data.test_fraction=0.001 of 300 sequences is none", "type data.test_fraction=0.2"),
        ((0.5, 0.5), "data.val_fraction=0.5 and data.test_fraction=0.5", "type data.val_fraction=0.2"),
    ],
)
def test_a_part_without_sequences_names_its_fraction(fractions, problem, hint, tmp_path):
    with pytest.raises(DataError) as caught:
        load(tmp_path, *fractions, x=RNG.normal(size=(300, 4)), y=np.arange(300) % 3)
    assert problem in caught.value.problem and hint in caught.value.hint
    typed = dict(word.removeprefix("data.").split("=") for word in caught.value.hint.removeprefix("type ").split())
    wanted = dict(zip(("val_fraction", "test_fraction"), fractions, strict=True)) | {
        k: float(v) for k, v in typed.items()
    }
    load(tmp_path, **wanted, x=RNG.normal(size=(300, 4)), y=np.arange(300) % 3)


LABELS = {
    "classification": np.arange(40) % 3,
    "tagging": np.arange(240).reshape(40, 6) // 7 % 3,
    "forecasting": (np.arange(40) % 3).astype(float),
}
TASKS = {"classification": Classification, "tagging": Tagging, "forecasting": Forecasting}


@pytest.mark.parametrize("wanted", TASKS)
@pytest.mark.parametrize("given", TASKS)
def test_another_task_says_what_in_y_decided_and_how_to_save_it(given, wanted, tmp_path):
    x, y = RNG.normal(size=(40, 6)), LABELS[given]
    spec, _ = load(tmp_path, x=x, y=y)
    if given == wanted:
        TASKS[wanted](spec)
        return
    with pytest.raises(ConfigError) as caught:
        TASKS[wanted](spec)
    holds = {"classification": "whole numbers [N],", "tagging": "whole numbers [N, T],", "forecasting": "floats,"}
    assert f"y holds {holds[given]}" in caught.value.problem
    saved = {"forecasting": y.astype(float), "classification": (np.arange(40) % 3), "tagging": LABELS["tagging"]}[
        wanted
    ]
    advice = {"forecasting": "floats", "classification": "integers [N] ", "tagging": "integers [N, T]"}[wanted]
    assert f"type task={given}" in caught.value.hint and f"save y as {advice}" in caught.value.hint
    TASKS[wanted](load(tmp_path, x=x, y=saved)[0])


def test_data_that_are_no_arrays_are_not_told_to_save_y(tmp_path):
    from lstmopt.data.co2 import CO2

    with pytest.raises(ConfigError) as caught:
        Classification(CO2(64, 0, 104, 26).load()[0])
    assert "save y" not in str(caught.value) and caught.value.hint == "type task=forecasting"


@pytest.mark.parametrize("task", LABELS)
def test_the_spec_tells_how_raw_inputs_become_the_models(task, tmp_path):
    x, lengths = RNG.normal([3, -8, 0], [2, 0.1, 50], (40, 6, 3)), np.full(40, 6)
    lengths[7], x[7, 4:] = 4, np.nan
    spec, splits = load(tmp_path, x=x, y=LABELS[task], lengths=lengths)
    assert spec.input_names == ["x0", "x1", "x2"]
    scaled = (x - spec.input_mean) / spec.input_std
    scaled[7, 4:] = 0
    given = torch.cat([splits[part].x for part in splits]).numpy()
    np.testing.assert_allclose(np.sort(given, axis=0), np.sort(scaled, axis=0), rtol=1e-3, atol=1e-4)
