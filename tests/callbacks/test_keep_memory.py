"""Pages are not fetched anew in every step, and are given back at the end."""

import resource

import psutil
import pytest
import torch
from foreign import Foreign, fit

from lstmopt.callbacks.keep_memory import KeepMemory, glibc


class Large(Foreign):
    """Takes and frees 200 MB in every step."""

    def __init__(self):
        super().__init__()
        self.faults = []

    def training_step(self, batch, batch_idx):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(50_000_000)
        self.faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        return super().training_step(batch, batch_idx)


@pytest.mark.skipif(glibc() is None, reason="this C library is not glibc")
def test_a_page_is_fetched_once(tmp_path):
    plain, _ = fit(tmp_path, module=Large())
    kept, _ = fit(tmp_path, KeepMemory(), module=Large())
    after = psutil.Process().memory_info().rss
    assert sum(plain.faults[5:]) > 1000
    assert sum(kept.faults[5:]) < sum(plain.faults[5:]) / 20
    held = torch.ones(50_000_000)
    assert psutil.Process().memory_info().rss - after > 0.9 * held.nbytes  # it was given back at the end


class Breaks(Large):
    """Its last step raises."""

    def training_step(self, batch, batch_idx):
        if batch_idx == 4:
            raise RuntimeError("planted")
        return super().training_step(batch, batch_idx)


@pytest.mark.skipif(glibc() is None, reason="this C library is not glibc")
def test_it_is_given_back_where_the_training_breaks(tmp_path):
    with pytest.raises(RuntimeError, match="planted"):
        fit(tmp_path, KeepMemory(), module=Breaks())
    after = psutil.Process().memory_info().rss
    held = torch.ones(50_000_000)
    assert psutil.Process().memory_info().rss - after > 0.9 * held.nbytes
