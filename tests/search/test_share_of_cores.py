"""Threads per process, on machines whose cores, and whose binding of processes to them, are known."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lstmopt import cores
from lstmopt.cores import share_of_cores
from lstmopt.distributed.processes import Processes


@pytest.fixture
def machine(monkeypatch):
    """Of sixteen cores with two threads each; `machine(numbers)` binds the process to some of the 32."""
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 16)
    monkeypatch.setattr(cores, "QUOTA", Path("/nowhere"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    before = torch.get_num_threads()
    yield lambda number: monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(number)))
    torch.set_num_threads(before)


@pytest.mark.parametrize(("bound", "jobs", "threads"), [(32, 4, 4), (8, 4, 2), (8, 1, 8), (2, 4, 1), (3, 2, 1)])
def test_jobs_share_what_the_process_is_bound_to(bound, jobs, threads, machine):
    machine(bound)
    assert share_of_cores(jobs) == threads


def test_a_system_that_binds_no_processes(machine, monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity")
    assert share_of_cores(4) == 4


@pytest.mark.parametrize(
    ("limit", "jobs", "threads"),
    [("200000 100000", 1, 2), ("350000 100000", 1, 3), ("50000 100000", 1, 1), ("max 100000", 4, 4), ("", 4, 4)],
)
def test_a_container_may_use_so_much(limit, jobs, threads, machine, tmp_path, monkeypatch):
    """As `docker run --cpus=2` and Kubernetes write it; the binding says nothing of it."""
    machine(32)
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    assert share_of_cores(jobs) == threads


def launched(monkeypatch, outside):
    """Threads of the first of four processes, as it starts to train."""
    environment = SimpleNamespace(creates_processes_externally=outside, validate_settings=lambda **kwargs: None)
    launcher = Processes(environment, num_processes=4, num_nodes=1)
    monkeypatch.setattr(launcher, "_call_children_scripts", lambda: None)
    try:
        return launcher.launch(lambda: (torch.get_num_threads(), int(os.environ["OMP_NUM_THREADS"])))
    finally:
        launcher.finish(failed=False)


@pytest.mark.parametrize(
    ("bound", "per_task", "outside", "threads"),
    [
        (32, None, False, 4),  # the machine's cores, divided
        (8, None, False, 2),
        (8, None, True, 2),  # of torchrun
        (8, "8", True, 8),  # a task of srun, bound to its own
        (32, "8", True, 8),  # a task of srun, bound to none
        (1, "8", True, 1),
        (8, "8", False, 2),  # a batch job without srun: one task, which starts four processes
    ],
)
def test_a_task_of_srun_does_not_divide_its_cores_again(bound, per_task, outside, threads, machine, monkeypatch):
    machine(bound)
    if per_task:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", per_task)
    assert launched(monkeypatch, outside) == (threads, threads)
    assert "OMP_NUM_THREADS" not in os.environ
