"""A search on a Ray cluster of this machine: 8 trials with ASHA, a worker of which is killed.

    python scripts/check_ray.py [--trials 8] [--keep FOLDER]

Starts a head with `ray start --head --num-cpus=2` on a free port, searches, kills a worker and the process of
another trial, and compares what is left with `search=tpe`. Ends the head that it started, and with 1 where
anything is wrong. Needs `pip install 'lstmopt[ray]'`.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["trainer.max_epochs=3", "trainer.limit_train_batches=3", "callbacks.picture=null", "logger=none"]
SPACE = ["search/space=optimizers", "model.hidden_size=8"]


class Head:
    """A Ray cluster of one node, apart from any other on this machine; its address."""

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ray = Path(sys.executable).with_name("ray")
        before = {process.pid for process in psutil.process_iter()}
        subprocess.run(
            [ray, "start", "--head", "--num-cpus=2", f"--port={port}", "--node-ip-address=127.0.0.1"]
            + ["--include-dashboard=false", "--disable-usage-stats"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        new = [process for process in psutil.process_iter(["cmdline"]) if process.pid not in before]
        self.processes = [process for process in new if "ray" in " ".join(process.info["cmdline"] or [])]
        return f"127.0.0.1:{port}"

    def __exit__(self, *error):
        for process in self.processes:
            if process.is_running():
                process.terminate()
        for process in psutil.wait_procs(self.processes, timeout=10)[1]:
            process.kill()


def searched(folder, *words):
    """The program begun with these words."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(folder / f"{words[0]}.log", "a") as log:
        command = [sys.executable, str(ROOT / "train.py"), *words, *SMALL, *SPACE]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def trial_process(folder, number):
    """The process of a trial that has a checkpoint and has not ended; None where there is none."""
    if not (folder / str(number) / "checkpoints" / "last.ckpt").exists():
        return None
    for process in psutil.process_iter(["cmdline"]):
        if f"hydra.run.dir={folder / str(number)}" in (process.info["cmdline"] or []):
            return process
    return None


def kill_one(search, folder, numbers, worker):
    """Kill a trial's process, or the worker of Ray that started it; the trial's number."""
    while search.poll() is None:
        for number in numbers:
            process = trial_process(folder, number)
            if process is not None:
                try:
                    victim = process.parent() if worker else process
                    victim.send_signal(signal.SIGKILL)
                    return number
                except (psutil.NoSuchProcess, AttributeError):
                    continue
        time.sleep(0.05)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--keep", type=Path, help="folder that what was made is left in")
    options = parser.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory() as made, Head() as address:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        words = [f"search.n_trials={options.trials}", "search.study=ray", f"search.cluster.address={address}"]
        search = searched(folder, "search=ray_tune", *words)
        sweep = folder / "multirun" / "ray"
        worker = kill_one(search, sweep, range(options.trials), worker=True)
        process = kill_one(search, sweep, [n for n in range(options.trials) if n != worker], worker=False)
        code = search.wait()
        seconds = time.monotonic() - began
        tpe = searched(folder, "search=tpe", "search.n_trials=2", "search.study=tpe").wait()
        log = (folder / "search=ray_tune.log").read_text()
        if code or tpe or worker is None or process is None:
            wrong.append(f"exit codes {code} and {tpe}, killed {worker} and {process}: {log[-2000:]}")
        found = json.loads((sweep / "sweep.json").read_text())
        other = json.loads((folder / "multirun" / "tpe" / "sweep.json").read_text())
        states = Counter(trial["status"] for trial in found["trials"])
        if [trial["number"] for trial in found["trials"]] != list(range(options.trials)):
            wrong.append(f"trials {[trial['number'] for trial in found['trials']]}")
        if set(states) - {"completed", "pruned"}:
            wrong.append(f"trials ended as {dict(states)}")
        if found.keys() != other.keys() or {frozenset(t) for t in found["trials"]} != {frozenset(other["trials"][0])}:
            wrong.append("sweep.json has another shape than that of search=tpe")
        for trial in found["trials"]:
            result = json.loads(Path(trial["run_dir"], "results.json").read_text())
            if result["status"] != trial["status"]:
                wrong.append(f"trial {trial['number']} is {trial['status']}, its results.json says {result['status']}")
        for number in (worker, process):
            if number is not None and "going on from" not in (sweep / str(number) / "output.log").read_text():
                wrong.append(f"trial {number} was killed and did not go on from last.ckpt")
        for name in ("report.md", "experiment/best.yaml", "history.png"):
            if not (sweep / name).is_file():
                wrong.append(f"no {name}")
    print(
        f"{options.trials} trials on Ray in {seconds:.0f} s, the worker of trial {worker} and the process of trial "
        f"{process} killed: {dict(states)}: {'MISSED' if wrong else 'holds'}"
    )
    print("\n".join(wrong), file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
