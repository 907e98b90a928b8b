"""The few steps that `tune` makes."""

import os
import signal

import pytest
import pytorch_lightning as pl
from hydra import compose, initialize_config_dir

from lstmopt.conf_dir import conf_dir
from lstmopt.errors import Interrupted
from lstmopt.signals import answered
from lstmopt.tune.short_run import short_run

SMALL = ["data=mackey_glass", "data.length=330", "data.input_length=16", "data.horizon=3", "model.hidden_size=8"]


class Asked(pl.Callback):
    def __init__(self, signum):
        self.signum = signum

    def on_train_batch_end(self, *_):
        os.kill(os.getpid(), self.signum)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_its_code_and_promises_no_checkpoint(signum):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", SMALL)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(Interrupted) as caught, answered():
            short_run(cfg, Asked(signum), steps=5, seed=0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.signum == signum and "goes on from here" not in caught.value.hint
