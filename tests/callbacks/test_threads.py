"""The number of threads: tried on the first steps, kept in checkpoints, left as it was."""

from types import SimpleNamespace

import pytest
import torch
from foreign import Foreign, fit

from lstmopt.callbacks.threads import MOST_ROUNDS, ROUNDS, WARM_UP, Threads
from lstmopt.errors import ConfigError


class Slow(Foreign):
    """Slower with every number of threads but one, by a clock of its own."""

    def __init__(self, fast, slow=1.5):
        super().__init__()
        self.fast, self.slow, self.used, self.now = fast, slow, [], 0.0

    def training_step(self, batch, batch_idx):
        self.used.append(torch.get_num_threads())
        self.now += 1.0 if self.used[-1] == self.fast else self.slow
        return super().training_step(batch, batch_idx)


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))  # two threads per core
    before = torch.get_num_threads()
    yield before
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("fast", [1, 2, 4])
def test_the_fastest_number_is_found(fast, four_cores, tmp_path, capsys, monkeypatch):
    callback, module = Threads(), Slow(fast)
    monkeypatch.setattr("lstmopt.callbacks.threads.time", SimpleNamespace(perf_counter=lambda: module.now))
    fit(tmp_path, callback, module=module, epochs=6)
    trial = 3 * (WARM_UP + ROUNDS)
    assert module.used[:trial] == [1, 2, 4] * (WARM_UP + ROUNDS)
    assert module.used[trial:] == [fast] * (30 - trial) and callback.chosen == fast
    assert f"threads: {fast} (" in capsys.readouterr().out


@pytest.mark.parametrize(("bound", "tried"), [(1, {1}), (2, {1, 2}), (3, {1, 2})])
def test_a_process_bound_to_some_cores_tries_no_more(bound, tried, four_cores, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(bound)))
    module, _ = fit(tmp_path, Threads(), module=Slow(4), epochs=6)
    assert set(module.used) == tried


def test_close_numbers_are_tried_for_longer(four_cores, tmp_path, monkeypatch):
    callback, module = Threads(), Slow(2, slow=1.2)
    monkeypatch.setattr("lstmopt.callbacks.threads.time", SimpleNamespace(perf_counter=lambda: module.now))
    fit(tmp_path, callback, module=module, epochs=12)
    trial = 3 * (WARM_UP + MOST_ROUNDS)
    assert module.used == [1, 2, 4] * (WARM_UP + MOST_ROUNDS) + [2] * (60 - trial) and callback.chosen == 2


def test_a_resumed_run_keeps_the_choice(four_cores, tmp_path, monkeypatch):
    module = Slow(2)
    monkeypatch.setattr("lstmopt.callbacks.threads.time", SimpleNamespace(perf_counter=lambda: module.now))
    _, run = fit(tmp_path, Threads(), module=module, epochs=6)
    run.save_checkpoint(tmp_path / "last.ckpt")
    module, _ = fit(tmp_path, Threads(), module=Slow(4), epochs=7, ckpt_path=tmp_path / "last.ckpt")
    assert module.used == [2] * 5


def test_a_number_that_was_typed_or_set_is_taken(four_cores, tmp_path, monkeypatch):
    module, _ = fit(tmp_path, Threads(2), module=Slow(1))
    assert set(module.used) == {2}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    module, _ = fit(tmp_path, Threads(), module=Slow(2))
    assert set(module.used) == {four_cores}


@pytest.mark.parametrize("at", [0, 1, 2])
def test_after_a_step_that_raises_the_number_is_as_before(at, four_cores, tmp_path):
    class Breaks(Slow):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if batch_idx == at:
                raise RuntimeError("broken")
            return loss

    module = Breaks(1)
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, Threads(), module=module)
    assert module.used == [1, 2, 4][: at + 1]
    assert torch.get_num_threads() == four_cores


def test_a_run_that_breaks_before_its_training_changes_no_number(four_cores, tmp_path):
    class Breaks(Foreign):
        def configure_optimizers(self):
            raise RuntimeError("broken")

    callback = Threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="broken"):
            fit(tmp_path, callback, module=Breaks())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(four_cores)


def test_no_threads_at_all_is_refused():
    with pytest.raises(ConfigError, match="no number of threads"):
        Threads(0)
