"""The program: `python train.py ...` and `lstmopt-train ...`."""

import os
import re
import sys
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lstmopt import comparison
from lstmopt.conf_dir import conf_dir
from lstmopt.errors import Interrupted, UserError


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
def job(cfg: DictConfig) -> float:
    """One run of the composed config; gives the best value of the monitored metric."""
    from lstmopt.run import run  # torch is imported here, after the config was composed

    try:
        return run(cfg)
    except (UserError, Interrupted) as error:
        if HydraConfig.get().mode == RunMode.RUN:
            end(error)  # before Hydra adds lines of its own; in a multirun the other jobs still run
        raise


def main() -> None:
    """Run, and end with the exit code that says how it went.

    0 done; 2 the user's mistake, told in one message; 130 or 143 stopped by a signal, after `last.ckpt` was
    saved; 1 a defect, with its traceback.
    """
    sys.argv[1:] = [re.sub("^resume=", "resume.path=", word) for word in sys.argv[1:]]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes exceptions on instead of ending the program
    try:
        job()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        end(error)
    finally:
        comparison.report()


def end(error: Exception) -> NoReturn:
    """End the program: a user's mistake as one message, a signal as its code, a defect with its traceback."""
    if isinstance(error, Interrupted):
        print(f"\n{error}; hydra.run.dir=FOLDER of this run goes on from here", file=sys.stderr)
        sys.exit(128 + error.signum)
    if isinstance(error, UserError):
        message: str | None = str(error)
    else:
        from lstmopt.mistakes import explain

        message = explain(error, sys.argv[1:])
    if message is None:
        raise error
    print(f"lstmopt: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
