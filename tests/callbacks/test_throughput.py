"""The operations that a training makes, against the formula, and that counting them changes nothing."""

import pytest
import torch
from foreign import Foreign, fit
from pytorch_lightning import Callback
from torch.utils._python_dispatch import _get_current_dispatch_mode

from lstmopt.callbacks import throughput
from lstmopt.callbacks.throughput import Throughput
from lstmopt.flops import lstm_flops


def test_counting_a_batch_leaves_the_training_alone(tmp_path):
    counted_run, _ = fit(tmp_path, Throughput())
    plain, _ = fit(tmp_path)
    for a, b in zip(counted_run.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


def test_speed_is_operations_times_samples(tmp_path):
    speed = Throughput()
    module, _ = fit(tmp_path, speed)
    # 6 steps of 1 feature, 8 units; the head: forward, gradient of its input, gradient of its weights
    per_sample = lstm_flops(1, 6, 1, 8).total + 3 * 2 * 8 * 1
    assert speed.gflops_per_second == pytest.approx(per_sample * speed.samples_per_second / 1e9)


@pytest.mark.parametrize("where", ["training_step", "on_train_batch_start"])
def test_a_broken_first_batch_leaves_no_counter_behind(where, tmp_path):
    class Breaks(Foreign):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("broken")

    class Skips(Foreign):
        def on_train_batch_start(self, batch, batch_idx):
            return -1

    if where == "training_step":
        with pytest.raises(RuntimeError, match="broken"):
            fit(tmp_path, Throughput(), module=Breaks())
    else:
        fit(tmp_path, Throughput(), module=Skips())
    assert _get_current_dispatch_mode() is None


def test_what_other_callbacks_do_after_a_validation_is_not_counted(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])

    class Second(Foreign):
        def training_step(self, batch, batch_idx):
            now[0] += 1.0
            return super().training_step(batch, batch_idx)

    class Draws(Callback):
        def on_validation_end(self, trainer, pl_module):
            now[0] += 100.0

    speed = Throughput()
    fit(tmp_path, speed, Draws(), module=Second(), val_check_interval=0.4)
    assert now[0] > 400 and speed.samples_per_second == 4.0  # of a batch
