"""Sets of the UCR/UEA archive, on files made here."""

import pytest
import torch

from lstmopt.data.ucr import UCR
from lstmopt.errors import DataError


def every(part):
    return part.batch(torch.arange(len(part)))


def write_ts(folder, name, lines):
    (folder / "ucr").mkdir(exist_ok=True)
    for part in ("TRAIN", "TEST"):
        (folder / "ucr" / f"{name}_{part}.ts").write_text("#c\n@problemName x\n@data\n" + "\n".join(lines) + "\n")


def test_ucr_with_channels_and_unequal_lengths(tmp_path):
    lines = [
        f"{k},{k + 1},{k + 2}{',9' if k % 2 else ''}:5,6,7{',8' if k % 2 else ''}:{'uv'[k % 2]}" for k in range(10)
    ]
    write_ts(tmp_path, "Toy", lines)
    spec, splits = UCR(4, 0, str(tmp_path), "Toy", 0.2).load()
    assert (spec.input_size, spec.class_names) == (2, ["u", "v"])
    assert len(splits["train"]) == 8 and len(splits["val"]) == 2
    assert sorted(every(splits["val"]).y.tolist()) == [0, 1]
    test = every(splits["test"])
    assert test.lengths.tolist() == [3, 4] * 5
    train = every(splits["train"])
    steps = torch.cat([x[:length] for x, length in zip(train.x, train.lengths, strict=True)])
    assert torch.allclose(steps.mean(0), torch.zeros(2), atol=1e-5)
    assert torch.allclose(steps.std(0), torch.ones(2), atol=1e-4)


def test_ucr_joins_steps(tmp_path):
    write_ts(tmp_path, "Toy", [f"{k},{k * k},{k + 5},1,{k}:{'uv'[k % 2]}" for k in range(10)])
    _, single = UCR(4, 0, str(tmp_path), "Toy", 0.2).load()
    spec, joined = UCR(4, 0, str(tmp_path), "Toy", 0.2, segment_length=2).load()
    assert spec.input_size == 2
    for part in ("train", "val", "test"):
        x = every(single[part]).x[..., 0]
        by_hand = torch.stack([x[:, [0, 0]], x[:, [1, 2]], x[:, [3, 4]]], dim=1)
        assert torch.equal(every(joined[part]).x, by_hand)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1,x:u", "line 4 holds a cell"),
        ("1,2:3:u", "differ in length"),
        ("1,?:u", "no number"),
        ("1,inf:u", "infinite"),
    ],
)
def test_bad_ts(line, expected, tmp_path):
    write_ts(tmp_path, "Bad", [line])
    with pytest.raises(DataError, match=expected):
        UCR(4, 0, str(tmp_path), "Bad", 0.2).load()


def test_an_unknown_set_names_those_that_are_there(tmp_path):
    write_ts(tmp_path, "Toy", ["1,2:u", "2,3:v"])
    with pytest.raises(DataError) as caught:
        UCR(4, 0, str(tmp_path), "Tov", 0.2).load()
    assert "Toy" in caught.value.hint


def test_a_channel_constant_in_training_keeps_its_scale(tmp_path):
    write_ts(tmp_path, "Toy", [f"{k},{k + 1},{k + 3}:0.5,0.5,0.5:{'uv'[k % 2]}" for k in range(10)])
    test = tmp_path / "ucr" / "Toy_TEST.ts"
    test.write_text(test.read_text().replace("0.5,0.5,0.5", "0.6,0.6,0.6", 1))
    with pytest.warns(UserWarning, match="^channel 1 is constant over the training sequences$"):
        _, splits = UCR(4, 0, str(tmp_path), "Toy", 0.2).load()
    x = every(splits["test"]).x[..., 1]
    assert (
        torch.allclose(x[0], torch.tensor(0.1)) and (x[1:] == 0).all() and (every(splits["train"]).x[..., 1] == 0).all()
    )


@pytest.mark.parametrize("joined", [1, 2])
def test_the_spec_tells_how_raw_inputs_become_the_models(joined, tmp_path):
    write_ts(tmp_path, "Toy", [f"{k},{k * k},{k + 3},1:{k},7,-{k},{2 * k}:{'uv'[k % 2]}" for k in range(10)])
    spec, splits = UCR(4, 0, str(tmp_path), "Toy", 0.2, segment_length=joined).load()
    raw = torch.tensor([[[k, k], [k * k, 7], [k + 3, -k], [1, 2 * k]] for k in range(10)]).reshape(10, 4 // joined, -1)
    assert len(spec.input_names) == len(set(spec.input_names)) == spec.input_size == 2 * joined
    assert spec.input_names[0].startswith("channel 0") and spec.input_names[-1].startswith("channel 1")
    scaled = (raw - torch.tensor(spec.input_mean)) / torch.tensor(spec.input_std)
    torch.testing.assert_close(every(splits["test"]).x, scaled, rtol=1e-4, atol=1e-5)
