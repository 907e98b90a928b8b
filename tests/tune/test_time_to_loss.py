"""The batch size that is soonest at a loss: against loops by hand, on a clock that counts steps."""

import csv
import json
import math
import signal

import pytest
import torch
from hydra import compose, initialize_config_dir
from test_settle import equal_runs

from lstmopt.build import build
from lstmopt.conf_dir import conf_dir
from lstmopt.errors import ConfigError, Interrupted
from lstmopt.models.lstm import LSTM
from lstmopt.module import LSTMModule
from lstmopt.signals import Stopped
from lstmopt.tune import loss_clock, settle, time_to_loss
from lstmopt.tune.time_to_loss import _above, find_batch_size, picture

SMALL = ["data=mackey_glass", "data.length=700", "data.input_length=8", "data.horizon=2", "model.hidden_size=4"]
SMALL += ["loader=resident"]
PLAIN = [*SMALL, "optimizer=adam", "optimizer.lr=0.02", "gradient_clip=none"]
ASKED = ["tune.batch_size=true", "tune.batch_size_mode=loss"]
EPOCHS, QUARTER = 3, 0.25


def composed(*overrides):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("train", [*PLAIN, f"trainer.max_epochs={EPOCHS}", *ASKED, *overrides])


class Machine:
    """A step with `size` sequences takes `fixed` + `each` x size seconds; the first three a minute more, and so does
    whatever is validation."""

    def __init__(self, fixed, each):
        self.fixed, self.each = fixed, each
        self.now, self.steps, self.fits = 0.0, 0, []

    def cost(self, size):
        return self.fixed + self.each * size

    def seconds(self, sizes):
        """Of steps with these sizes, of which the first three count as much as the others do on average."""
        others = [self.cost(size) for size in sizes[3:]]
        return len(sizes) * sum(others) / len(others)

    def put_in_place(self, monkeypatch):
        plain, look, start = LSTMModule.training_step, LSTMModule.validation_step, LSTMModule.on_fit_start

        def training_step(module, batch, batch_idx):
            self.fits[-1] += 1
            self.now += self.cost(len(batch.x)) + 60 * (self.fits[-1] <= 3)
            return plain(module, batch, batch_idx)

        def validation_step(module, batch, batch_idx):
            self.now += 60
            return look(module, batch, batch_idx)

        def on_fit_start(module):
            self.fits.append(0)
            start(module)

        monkeypatch.setattr(LSTMModule, "training_step", training_step)
        monkeypatch.setattr(LSTMModule, "validation_step", validation_step)
        monkeypatch.setattr(LSTMModule, "on_fit_start", on_fit_start)
        monkeypatch.setattr(loss_clock, "perf_counter", lambda: self.now)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """(sizes of the batches so far, val/loss) of plain torch loops, for each size; four looks in an epoch."""
    found = {}
    for size in (8, 16, 32):
        parts = build(
            composed(f"data.batch_size={size}", "callbacks=none", "logger=none"), str(tmp_path_factory.mktemp("run"))
        )
        module, sizes, found[size] = parts.module, [], []
        optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
        for epoch in range(EPOCHS):
            loader = parts.datamodule.train_dataloader()
            loader.indices.set_epoch(epoch)
            for number, batch in enumerate(loader, 1):
                optimizer.zero_grad()
                module.task.loss(module(batch), batch).backward()
                optimizer.step()
                sizes.append(len(batch.x))
                if number % int(QUARTER * len(loader)) == 0:
                    found[size].append((sizes.copy(), loss_of(module, parts.datamodule.splits["val"])))
    return found


@torch.no_grad()
def loss_of(module, split):
    module.eval()
    batch = split.batch(torch.arange(len(split)))
    loss = float(module.task.loss(module(batch), batch))
    module.train()
    return loss


def expected(by_hand, machine, target):
    """Winner, and seconds to the loss or None for each size."""
    seconds = {}
    for size, looks in by_hand.items():
        reached = [sizes for sizes, loss in looks if loss <= target]
        seconds[size] = machine.seconds(reached[0]) if reached else None
    return min((s for s in seconds if seconds[s]), key=seconds.get, default=None), seconds


def between(by_hand, size, look):
    """A loss that no look is near, and that this look is the first to reach."""
    losses = [loss for _, loss in by_hand[size]]
    return math.sqrt(losses[look] * min(losses[:look]))


@pytest.mark.parametrize(("fixed", "each", "winner"), [(1.0, 0.0, 32), (0.1, 1.0, 8), (1.0, 0.04, None)])
def test_the_winner_is_that_of_loops_by_hand(by_hand, monkeypatch, fixed, each, winner):
    """Steps that cost the same are for large batches, sequences that cost the same for small ones."""
    machine = Machine(fixed, each)
    target = between(by_hand, 32, 5)
    best, seconds = expected(by_hand, machine, target)
    assert None not in seconds.values() and best == (winner or best)
    machine.put_in_place(monkeypatch)
    found = find_batch_size(composed(f"tune.batch_size_loss={target}"))
    assert found.batch_size == best
    least = math.inf
    for curve in found.curves:
        assert curve.reached == (seconds[curve.batch_size] < least) and curve.given_up != curve.reached
        if curve.reached:
            least = seconds[curve.batch_size]
            assert curve.seconds == pytest.approx(least)
        hand = [(machine.seconds(sizes), loss) for sizes, loss in by_hand[curve.batch_size]]
        whole = curve.looks[:-1] if curve.given_up else curve.looks
        for (at, loss), (at_by_hand, loss_by_hand) in zip(whole, hand, strict=False):
            assert (at, loss) == (pytest.approx(at_by_hand), pytest.approx(loss_by_hand, rel=1e-3))
    assert [curve.batch_size for curve in found.curves] == [8, 16, 32]


def test_a_lost_size_is_given_up_at_the_step_that_is_too_late(by_hand, monkeypatch):
    """The seconds of 8 are up, the first three steps not counted, and not one step more is made."""
    machine = Machine(0.1, 1.0)
    target = between(by_hand, 8, 2)
    best, seconds = expected(by_hand, machine, target)
    machine.put_in_place(monkeypatch)
    found = find_batch_size(composed(f"tune.batch_size_loss={target}"))
    assert best == found.batch_size == 8
    trained = machine.fits[3::3]  # after the reading of the data; each size is verified, and threads are chosen
    assert len(trained) == len(found.curves) == 3
    for steps, curve in zip(trained[1:], found.curves[1:], strict=True):
        costs = [machine.cost(batch) for batch in by_hand[curve.batch_size][-1][0]][3:]
        enough = [count for count in range(len(costs) + 1) if sum(costs[:count]) >= seconds[8]]
        assert steps - 3 == enough[0] and curve.given_up


def test_a_size_that_does_not_come_to_the_loss_loses(by_hand, monkeypatch):
    """Steps for nothing: 32 makes too few of them, and would have the time."""
    least = {size: min(loss for _, loss in looks) for size, looks in by_hand.items()}
    target = math.sqrt(least[32] * least[8])
    assert least[8] < target < least[32]
    machine = Machine(1.0, 0.0)
    best, seconds = expected(by_hand, machine, target)
    assert seconds[32] is None
    machine.put_in_place(monkeypatch)
    found = find_batch_size(composed(f"tune.batch_size_loss={target}"))
    last = found.curves[-1]
    assert found.batch_size == best and (last.batch_size, last.reached) == (32, False)
    assert f"32: {last.seconds:.2f} s {'given up' if last.given_up else 'not reached'}" in str(found)


def test_where_no_size_comes_to_the_loss_the_best_is_told(by_hand):
    best, size = min((loss, size) for size, looks in by_hand.items() for _, loss in looks)
    with pytest.raises(ConfigError, match=rf"=1e-06 within .*max_epochs=3.*data.batch_size={size}\b") as caught:
        find_batch_size(composed("tune.batch_size_loss=1e-6"))
    assert f"the best val/loss is {best:.2g}"[:-1] in str(caught.value)
    typed = float(caught.value.hint.split("tune.batch_size_loss=")[1].split(",")[0])
    assert best * 0.999 < typed < best * 1.011


@pytest.mark.parametrize("loss", [0.0023461, 1.0, 12345.6, -0.98765, 3.0001, 0.0])
def test_the_loss_to_type_is_not_below_the_one_that_was_seen(loss):
    assert loss <= _above(loss) * (1 + 1e-12 * math.copysign(1, loss)) and abs(_above(loss) - loss) <= 0.01 * abs(loss)


def test_nothing_but_the_size_comes_out(by_hand):
    cfg = composed(f"tune.batch_size_loss={between(by_hand, 32, 2)}")
    before = cfg.copy()
    find_batch_size(cfg)
    assert cfg == before


def test_steps_end_a_training_as_they_end_the_run():
    with pytest.raises(ConfigError, match="there is no val/loss"):
        find_batch_size(composed("tune.batch_size_loss=1e-6", "trainer.max_steps=1"))


def test_memory_ends_the_doubling(by_hand, monkeypatch):
    plain = LSTM.forward

    def forward(self, x, *args, **kwargs):
        if len(x) > 20 and self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return plain(self, x, *args, **kwargs)

    monkeypatch.setattr(LSTM, "forward", forward)
    found = find_batch_size(composed(f"tune.batch_size_loss={between(by_hand, 32, 2)}"))
    assert found.batch_size <= 16 and found.failed == [32] and "32 does not fit" in str(found)


def test_the_picture_has_a_line_for_each_size_and_the_loss(by_hand, monkeypatch):
    Machine(1.0, 0.0).put_in_place(monkeypatch)
    found = find_batch_size(composed(f"tune.batch_size_loss={between(by_hand, 32, 5)}"))
    (axes,) = picture(found).axes
    *lines, target = axes.get_lines()
    for line, curve in zip(lines, found.curves, strict=True):
        assert list(zip(*line.get_data(), strict=True)) == curve.looks
    widest = max(lines, key=lambda line: line.get_linewidth())
    assert widest.get_label() == str(next(c for c in found.curves if c.batch_size == found.batch_size))
    assert target.get_linestyle() == "--" and set(target.get_ydata()) == {found.target}
    assert axes.get_title() == f"data.batch_size={found.batch_size}"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_within_a_training_keeps_its_code(monkeypatch, signum):
    def stopped(self, *_):
        raise Stopped(signum)

    monkeypatch.setattr(loss_clock.LossClock, "on_validation_end", stopped)
    with pytest.raises(Interrupted) as caught:
        find_batch_size(composed("tune.batch_size_loss=1e-6"))
    assert caught.value.signum == signum


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (ASKED, ["no loss to reach", "type tune.batch_size_loss= and a val/loss"]),
        ([*ASKED, "tune.batch_size_loss=nan"], ["no loss to reach"]),
        (["tune.batch_size_mode=loss"], ["no loss to reach"]),
        (["tune.batch_size_loss=0.1"], ["tune.batch_size_loss is given", "type these, or leave it out"]),
        (["tune.batch_size=true", "tune.batch_size_loss=0.1"], ["tune.batch_size=true tune.batch_size_mode=loss"]),
        (["tune.batch_size_mode=loss", "tune.batch_size_loss=0.1"], ["nothing looks at it"]),
        ([*ASKED, "tune.batch_size_loss=1", "trainer.limit_val_batches=0"], ["type trainer.limit_val_batches=null"]),
        ([*ASKED, "tune.batch_size_loss=0.1"], []),
        (["tune.batch_size=true", "tune.batch_size_mode=largest"], []),
    ],
)
def test_contradictions(words, told):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        problems = settle.contradictions(compose("train", [*SMALL, *words]), [])
    assert len(problems) == bool(told)
    assert all(word in problems[0] for word in told)


def result(folder):
    return json.loads((folder / "results.json").read_text())


def test_the_program(program, monkeypatch):
    """The override that is said gives the same weights; the losses that were seen are those of the run."""
    words = [
        *SMALL,
        "callbacks.picture=null",
        "trainer.max_epochs=2",
        "trainer.val_check_interval=0.25",
        "logger=csv",
        "optimizer.lr=0.02",
    ]
    done = program(*words, *ASKED, "tune.batch_size_loss=0.7", "hydra.run.dir=tuned")
    assert done.returncode == 0, done.stderr
    tuned = result(program.folder / "tuned")["tuned"]
    said = next(line for line in done.stdout.splitlines() if line.startswith("tune: "))
    override = said.split()[1]
    assert override == f"data.batch_size={tuned['data.batch_size']}" and "val/loss of 0.7 with 8: " in said
    assert (program.folder / "tuned" / "tune_batch_size.png").read_bytes()[:4] == b"\x89PNG"
    assert program(*words, override, "hydra.run.dir=typed").returncode == 0
    equal_runs(program.folder / "tuned", program.folder / "typed")
    (file,) = (program.folder / "typed").rglob("metrics.csv")
    losses = [float(row["val/loss"]) for row in csv.DictReader(file.open()) if row["val/loss"]]
    monkeypatch.setattr(time_to_loss, "doubled", lambda *_: [tuned["data.batch_size"]])
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        (curve,) = find_batch_size(compose("train", [*words, *ASKED, f"tune.batch_size_loss={min(losses)}"])).curves
    seen = [loss for _, loss in curve.looks]
    assert len(seen) > 3 and seen == losses[: len(seen)]
    again = program(*words, *ASKED, "tune.batch_size_loss=0.7", "hydra.run.dir=tuned", "trainer.max_epochs=3")
    assert again.returncode == 0, again.stderr
    assert f"tune: {override} (as the run began)" in again.stdout


def test_a_refusal_leaves_nothing(program):
    for words, told in ((ASKED, "no loss to reach"), ([*ASKED, "tune.batch_size_loss=1e-9"], "no batch size comes to")):
        done = program(*SMALL, "trainer.max_epochs=1", *words)
        assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr
    assert not list(program.folder.iterdir())
