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
from lstmopt.errors import ConfigError, Interrupted, UserError, lost_worker
from lstmopt.importing import imported

UNSAFE = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE")  # they switch protections off

VALUED: tuple[str, ...] = (
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--package",
    "-p",
    "--info",
    "-i",
)
VALUED += ("--cfg", "-c", "--experimental-rerun")  # Hydra's flags that a value follows


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
def job(cfg: DictConfig) -> float:
    """One run of the composed config; gives the best value of the monitored metric."""
    imported("lstmopt.run")  # and torch with it, after the config was composed
    from lstmopt.run import run

    try:
        return run(cfg)
    except (UserError, Interrupted) as error:
        if HydraConfig.get().mode == RunMode.RUN:
            end(error)  # before Hydra adds lines of its own; in a multirun the other jobs still run
        raise
    except RuntimeError as error:
        if lost_worker(error) and HydraConfig.get().mode == RunMode.RUN:
            end(error)
        raise


def main() -> None:
    """Run, and end with the exit code that says how it went.

    0 done; 2 the user's mistake, told in one message; 130 or 143 stopped by a signal, after `last.ckpt` was
    saved; 1 a defect, with its traceback, or a reading process that was killed.
    """
    sys.argv[1:] = [re.sub("^resume=", "resume.path=", word) for word in _flags_first(sys.argv[1:])]
    modes = [word for word in sys.argv if word in ("-m", "--multirun") or word.startswith("hydra.mode=")]
    if any(re.match("search=(?!none$)", word) for word in sys.argv) and not modes:
        sys.argv.append("hydra.mode=MULTIRUN")  # a search is never one run
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes exceptions on instead of ending the program
    for name in UNSAFE:
        os.environ.pop(name, None)
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asked whether there is a card, torch opens none
    try:
        _look_at_what_hydra_makes(sys.argv[1:])
        _compose_once(sys.argv[1:])
        job()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        end(error)
    finally:
        comparison.report()


def _flags_first(arguments: list[str]) -> list[str]:
    """Hydra's parser takes no overrides on both sides of a flag."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(reversed(arguments))
    while rest:
        word = rest.pop()
        (flags if word.startswith("-") else overrides).append(word)
        if word in VALUED and rest and "=" not in rest[-1]:
            flags.append(rest.pop())
    return flags + overrides


def _compose_once(arguments: list[str]) -> None:
    """Spare Hydra composing everything once more only to look for `hydra.mode`, which no shipped file sets."""
    from hydra._internal.hydra import Hydra

    if not any(word.startswith(("-c", "--config", "hydra.mode=", "+hydra", "++hydra")) for word in arguments):
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]


def _look_at_what_hydra_makes(arguments: list[str]) -> None:
    """Refuse launchers, sweepers, callbacks and log handlers of others, which Hydra makes before `job` is called.

    Only where files of a user or settings of Hydra are on the command line, for composing twice takes time.

    Raises:
        ConfigError: there are some.
    """
    harmless = ("hydra.run.dir=", "hydra.sweep.dir=", "hydra.sweep.subdir=", "hydra.mode=")
    if not any(
        word.startswith(("-c", "--config")) or ("hydra" in word and not word.startswith(harmless)) for word in arguments
    ):
        return
    from hydra._internal.utils import get_args_parser

    from lstmopt import targets
    from lstmopt.mistakes import composed

    words = get_args_parser().parse_args(arguments)
    if words.help or words.hydra_help or words.shell_completion:
        return
    problems = targets.hydra_problems(composed(words))
    if problems:
        raise ConfigError("\n".join(problems[:2]))


def end(error: Exception) -> NoReturn:
    """End the program: a user's mistake or a lost worker as one message, a signal as its code, a defect as it is."""
    if isinstance(error, Interrupted):
        print(f"\n{error}; {error.hint}", file=sys.stderr)
        sys.exit(128 + error.signum)
    lost = lost_worker(error)
    if lost is not None:
        print(f"lstmopt: {lost}", file=sys.stderr)
        sys.exit(1)
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
