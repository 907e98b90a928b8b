"""Which classes a config may name."""

import difflib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lstmopt.conf_dir import conf_dir

HYDRA = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "hydra_plugins.lstmopt_search.SearchSweeper",
    "hydra_plugins.lstmopt_search.CompareSweeper",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
}
HANDLERS = {"logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "colorlog.ColoredFormatter"}
STREAMS = {"ext://sys.stdout", "ext://sys.stderr"}
FOREIGN = {
    *sys.stdlib_module_names,
    "torch",
    "numpy",
    "pandas",
    "pip",
    "hydra",
    "pytorch_lightning",
    "lightning_fabric",
}
LIBRARIES = ("torch.optim", "pytorch_optimizer", "pytorch_lightning.callbacks", "pytorch_lightning.loggers")
TYPED = "plugins.allow="


@cache
def shipped() -> frozenset[str]:
    """The exact names in the option files of lstmopt."""
    files = sorted(Path(conf_dir()).glob("**/*.yaml"))
    return frozenset(name for file in files for name in re.findall(r"_target_: (\S+)", file.read_text()))


def problems(cfg: DictConfig, overrides: list[str]) -> list[str]:
    """One line for every class that the config names and that is not lstmopt's to name, before any is imported.

    A user's own packages, and classes by their whole name, are allowed by `plugins.allow=[my_package]` on the command
    line, where no file that was handed over can put it.

    Args:
        cfg: the composed config.
        overrides: what was typed.
    """
    typed = any(word.lstrip("+").startswith(TYPED) for word in overrides)
    allowed: list[str] = list(cfg.plugins.allow) if typed else []
    if cfg.plugins.allow and not typed:
        return ["plugins.allow stands in a file, where anybody may have put it\n  type it on the command line"]
    own = tuple(f"{name}." for name in allowed)
    known = shipped() | set(allowed)
    bad = [
        (path, name)
        for path, name in dict.fromkeys(_named(cfg))
        if name not in known and not (own and str(name).startswith(own))
    ]
    return [_told(path, str(name)) for path, name in bad]


def hydra_problems(cfg: DictConfig) -> list[str]:
    """The same for what Hydra itself makes: launcher, sweeper, callbacks, handlers of logs."""
    found = [
        f"hydra.{path}={name} is not allowed\n  leave it out"
        for path, name in dict.fromkeys(_named(cfg.hydra))
        if name not in HYDRA | shipped()
    ]
    for part in ("job_logging", "hydra_logging"):
        for path, name in _factories(_plain(cfg.hydra.get(part), resolve=False), f"hydra.{part}"):
            found.append(f"{path}={name} is not allowed\n  leave it out")
    return found


def _named(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """(path, value) of every `_target_`, as it is written and as it reads with all references followed."""
    yield from _targets(_plain(cfg, resolve=False))
    try:
        yield from _targets(_plain(cfg, resolve=True))
    except OmegaConfBaseException:
        return  # what cannot be followed is told where it is used


def _plain(cfg: Any, resolve: bool) -> Any:
    return OmegaConf.to_container(cfg, resolve=resolve, throw_on_missing=False) if OmegaConf.is_config(cfg) else cfg


def _targets(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield f"{path}._target_".lstrip("."), value
            else:
                yield from _targets(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _targets(value, f"{path}[{number}]")


def _factories(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """What logging.config would import or call."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "()" or (key == "class" and value not in HANDLERS):
                yield f"{path}.{key}", value
            else:
                yield from _factories(value, f"{path}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _factories(value, f"{path}[{number}]")
    elif isinstance(node, str) and re.match(r"(ext|cfg)://", node) and node not in STREAMS:
        yield path, node


def _told(path: str, name: str) -> str:
    near = difflib.get_close_matches(name, shipped(), n=1, cutoff=0.8)
    package, (parent, _, last) = name.split(".")[0], name.rpartition(".")
    if parent in LIBRARIES and last.isidentifier():
        instead = f"'plugins.allow=[{name}]'" + (f", or {near[0]}" if near else "")
    elif package.isidentifier() and package not in FOREIGN:
        instead = near[0] if near else f"'plugins.allow=[{package}]' where {package} is a package of your own"
    else:
        instead = near[0] if near else "a name out of those"
    return f"{path}={name[:80]} is not a class of lstmopt's option files\n  type {instead}"
