"""How many cores a process may use."""

import os
from contextlib import suppress
from pathlib import Path

import psutil

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of processor time, and of the time in which they may be used


def share_of_cores(n_jobs: int) -> int:
    """Threads of each of some processes: they share the machine's cores, or those that this process is bound to, or
    as many as its container may use."""
    cores = psutil.cpu_count(logical=False) or 1
    if hasattr(os, "sched_getaffinity"):  # where the system binds processes: taskset, a container's cpuset, SLURM
        cores = min(cores, len(os.sched_getaffinity(0)))
    with suppress(OSError, ValueError):  # `max 100000` where there is no limit
        quota, period = map(int, QUOTA.read_text().split())
        cores = min(cores, max(1, quota // period))
    return max(1, cores // n_jobs)
