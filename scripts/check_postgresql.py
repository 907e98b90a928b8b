"""A study in PostgreSQL with four processes: exactly 40 trials, one of the processes killed and started again.

    python scripts/check_postgresql.py [--trials 40] [--processes 4]

PostgreSQL's programs are taken from /usr/lib/postgresql or the PATH; where there are none, and this is Debian and the
user is root, they are installed. The server lives in a temporary folder and ends with the script. Needs psycopg
(`pip install 'psycopg[binary]'`).
"""

import argparse
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import optuna

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["trainer.max_epochs=2", "trainer.limit_train_batches=3", "callbacks.picture=null", "logger=none"]


def programs():
    """The folder of initdb and pg_ctl."""
    for attempt in range(2):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [shutil.which("initdb")]
        if found[-1]:
            return Path(found[-1]).parent
        if attempt == 0 and os.geteuid() == 0 and shutil.which("apt-get"):
            subprocess.run(["apt-get", "install", "-y", "-qq", "postgresql"], check=True, stdout=subprocess.DEVNULL)
    sys.exit("PostgreSQL is missing: apt-get install postgresql")


class Server:
    """PostgreSQL in a temporary folder; root cannot run it, so that it belongs to `postgres` then."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if self.user:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._call("initdb", "-D", self.folder / "data", "-A", "trust", "-U", "me")
        self._call(
            *("pg_ctl", "-D", self.folder / "data", "-l", self.folder / "log", "-w", "start"),
            *("-o", f"-p {self.port} -k {self.folder}"),
        )
        return f"postgresql+psycopg://me@127.0.0.1:{self.port}/postgres"

    def __exit__(self, *error):
        self._call("pg_ctl", "-D", self.folder / "data", "-m", "fast", "stop")
        shutil.rmtree(self.folder)

    def _call(self, program, *words):
        owner = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        command = [str(programs() / program), *map(str, words)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **owner)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--processes", type=int, default=4)
    options = parser.parse_args()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with Server() as url, tempfile.TemporaryDirectory() as folder:
        words = [*SMALL, "search=random", f"search.n_trials={options.trials}", f"search.storage={url}"]
        command = [sys.executable, str(ROOT / "train.py"), *words, "model.hidden_size=8", "search/pruner=none"]
        command += ["optimizer.lr=tag(log,interval(1e-4,1e-1))"]

        def start(k):
            with open(Path(folder) / f"{k}.log", "w") as log:
                return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)

        began = time.monotonic()
        workers = [start(k) for k in range(options.processes)]
        time.sleep(20)
        workers[0].send_signal(signal.SIGKILL)
        workers[0].wait()
        workers[0] = start("again")
        codes = [worker.wait() for worker in workers]
        (name,) = optuna.get_all_study_names(url)
        trials = optuna.load_study(study_name=name, storage=url).trials
        states = Counter(trial.state.name for trial in trials)
        shares = Counter(trial.user_attrs["worker"] for trial in trials)
        rates = len({trial.params["optimizer.lr"] for trial in trials})
        held = states == {"COMPLETE": options.trials} and rates == options.trials and not any(codes)
        print(
            f"{options.processes} processes, one killed and started again, {time.monotonic() - began:.0f} s: "
            f"{dict(states)}, {rates} different proposals, trials by process {sorted(shares.values())}, "
            f"exit codes {codes}: {'holds' if held else 'MISSED'}"
        )
        if not held:
            for log in Path(folder).glob("*.log"):
                print(log.name, log.read_text()[-2000:], file=sys.stderr)
        sys.exit(not held)


if __name__ == "__main__":
    main()
