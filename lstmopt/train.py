"""The program: `python train.py ...` and `lstmopt-train ...`."""

import argparse
import os
import re
import sys
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lstmopt import comparison
from lstmopt.conf_dir import conf_dir
from lstmopt.errors import ConfigError, Interrupted, UserError, lost_worker
from lstmopt.importing import imported
from lstmopt.signals import answered

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
    words = get_args_parser().parse_args(sys.argv[1:])
    try:
        with answered():
            _refuse_pickles(words)
            _refuse_packages()
            _look_at_what_hydra_makes(words)
            _compose_once(words)
            job()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        end(error)
    finally:
        comparison.report()


def _flags_first(arguments: list[str]) -> list[str]:
    """Hydra's parser takes no overrides on both sides of a flag; flags are written out."""
    flags: list[str] = []
    overrides: list[str] = []
    known = [name for name in get_args_parser()._option_string_actions if name.startswith("--")]
    rest = [_in_full(word, known) for word in reversed(arguments)]
    while rest:
        word = rest.pop()
        (flags if word.startswith("-") else overrides).append(word)
        if word in VALUED and rest and "=" not in rest[-1]:
            flags.append(rest.pop())
    return flags + overrides


def _in_full(word: str, known: list[str]) -> str:
    """The flag that a word abbreviates, as Hydra's parser reads it; any other word as it is."""
    name, equals, value = word.partition("=")
    meant = [flag for flag in known if flag.startswith(name)] if re.match("--.", name) else []
    return f"{meant[0]}{equals}{value}" if len(meant) == 1 else word


def _refuse_pickles(words: argparse.Namespace) -> None:
    """Refuse Hydra's `--experimental-rerun`.

    Raises:
        ConfigError: it was typed.
    """
    if words.experimental_rerun is not None:
        raise ConfigError(
            "--experimental-rerun runs whatever code stands in the file that it reads",
            "type the run's words again, as overrides in its results.json has them; hydra.run.dir=FOLDER goes on",
        )


def _refuse_packages() -> None:
    """Have Hydra refuse `pkg://` folders of others, which it would import; a config can name them as `searchpath`."""
    from hydra._internal.config_repository import ConfigRepository

    made = ConfigRepository.initialize_sources

    def looked_at(self: ConfigRepository, search_path: ConfigSearchPath) -> None:
        for path in [str(item.path) for item in search_path.get_path()]:
            if path.startswith("pkg://") and re.split("[./]", path[6:])[0] not in ("hydra", "hydra_plugins"):
                raise ConfigError(f"{path} is a package, which would be imported", "type --config-dir FOLDER")
        made(self, search_path)

    ConfigRepository.initialize_sources = looked_at  # type: ignore[assignment, method-assign]


def _compose_once(words: argparse.Namespace) -> None:
    """Spare Hydra composing everything once more only to look for `hydra.mode`, which no shipped file sets."""
    from hydra._internal.hydra import Hydra

    overrides = any(word.startswith(("hydra.mode=", "+hydra", "++hydra")) for word in words.overrides)
    if not overrides and not _own_files(words):
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]


def _own_files(words: argparse.Namespace) -> bool:
    return any(word is not None for word in (words.config_dir, words.config_name, words.config_path))


def _look_at_what_hydra_makes(words: argparse.Namespace) -> None:
    """Refuse launchers, sweepers, callbacks and log handlers of others, which Hydra makes before `job` is called.

    Only where files of a user or settings of Hydra are on the command line, for composing twice takes time.

    Raises:
        ConfigError: there are some.
    """
    harmless = ("hydra.run.dir=", "hydra.sweep.dir=", "hydra.sweep.subdir=", "hydra.mode=")
    if words.help or words.hydra_help or words.shell_completion:
        return
    if not _own_files(words) and not any("hydra" in w and not w.startswith(harmless) for w in words.overrides):
        return
    from lstmopt import targets
    from lstmopt.mistakes import composed

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
