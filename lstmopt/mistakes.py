"""Hydra's errors in one message: every override that is wrong, with the nearest right name."""

import difflib
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lstmopt.conf_dir import conf_dir
from lstmopt.quoting import quoted

TRAIN = "train"  # the primary config


def explain(error: Exception, arguments: list[str]) -> str | None:
    """What the user typed wrong and what to type instead; None for an error that is not the user's."""
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        name = error.filename or ""
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError) or error.errno in (28, 30):
            return f"cannot write to {name or 'the run folder'}: {error.strerror}\n  type hydra.run.dir=FOLDER"
        return None
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}, is not YAML: {error.problem}\n  mend it"
    without_name = isinstance(error, ValueError) and str(error).startswith("Config group override")  # GROUP=null
    if not without_name and not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    words = get_args_parser().parse_args(arguments)
    for flag, folder in (("--config-dir", words.config_dir), ("--config-path", words.config_path)):
        if folder and not Path(folder).is_dir():
            return f"{flag} {folder}: there is no such folder in {Path.cwd()}\n  type the path of one"
    if not words.multirun and "hydra.mode=MULTIRUN" not in words.overrides:
        several = [word for word in words.overrides if _values(word) != [word]]
        if several:
            key, _, values = several[0].partition("=")
            as_list = "" if key in _groups() else f", or {key}=[{values}] for a list"
            return f"{several[0]} is more than one value\n  type -m for a run with each{as_list}"
    name = words.config_name or TRAIN
    with _search_path(words):
        try:
            compose(name)
        except (HydraException, OmegaConfBaseException) as own:
            return f"{name}.yaml: {str(own).splitlines()[0]}\n  mend it, or type another --config-name"
        problems = _try_each(name, words.overrides)
    return "\n".join(problems) or None


def composed(words: Any) -> DictConfig:
    """The config, with Hydra's own part, of arguments that Hydra's parser read; of several values the first."""
    overrides = [_values(override)[0] for override in words.overrides]
    with _search_path(words):
        return compose(words.config_name or TRAIN, overrides, return_hydra_config=True)


@contextmanager
def _search_path(words: Any) -> Iterator[None]:
    """Files looked for where Hydra looks for them with these flags."""
    version.setbase("1.3")
    path = create_config_search_path(str(Path(words.config_path or conf_dir()).absolute()))
    if words.config_dir:
        path.prepend("command-line", f"file://{Path(words.config_dir).absolute()}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    Hydra.create_main_hydra2("train", path)
    try:
        yield
    finally:
        GlobalHydra.instance().clear()


def _try_each(name: str, overrides: list[str]) -> list[str]:
    """Compose with one override more each time; options of groups first, keys inside them after."""
    problems: list[str] = []
    good: list[str] = []
    for override in sorted(overrides, key=lambda word: "." in word.split("=")[0]):
        for single in _values(override):
            try:
                compose(name, [*good, single])
            except (HydraException, OmegaConfBaseException, ValueError) as error:
                bare = single.lstrip("+")
                if bare != single and _composes(name, [*good, bare]):
                    key = bare.partition("=")[0]
                    problems.append(f"{single}: {key} is there already\n  type {bare}, without the +")
                    good.append(bare)
                else:
                    problems.append(_one(single, error, compose(name, good, return_hydra_config=True)))
                break
        else:
            good.append(single)
    return problems


def _composes(name: str, overrides: list[str]) -> bool:
    try:
        compose(name, overrides)
    except (HydraException, OmegaConfBaseException, ValueError):
        return False
    return True


def _values(override: str) -> list[str]:
    """`optimizer=adam,sgd` as `optimizer=adam` and `optimizer=sgd`, an interval as its start, the rest as it is."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return [override]
    if not parsed.is_sweep_override():
        return [override]
    if parsed.is_interval_sweep():
        return [f"{parsed.get_key_element()}={parsed.value().start}"]  # type: ignore[union-attr]
    return [f"{parsed.get_key_element()}={value}" for value in parsed.sweep_string_iterator()]


def _one(override: str, error: Exception, cfg: DictConfig) -> str:
    key, equals, value = override.lstrip("+~").partition("=")
    if not equals:
        return f"cannot read {override}\n  type KEY=VALUE, as {key}=..."
    if isinstance(error, OverrideParseException):
        readable = _quoted(override.partition("=")[0], value)
        if readable:
            return f"cannot read {override}\n  quote it: type {shlex.quote(readable)}"
    groups = _groups()
    if key in groups and value not in groups[key]:
        below = [group for group in groups if group.startswith(f"{key}/") and value in groups[group]]
        near = _nearest(value, groups[key])
        hint = f"{below[0]}={value}" if below else f"{key}={near or '|'.join(groups[key])}"
        there = f" (there are {', '.join(groups[key])})" if near and not below else ""
        return f"{key}={value} does not exist\n  type {hint}{there}"
    if re.search("not in struct|Could not override|Could not append", str(error)):
        plain = OmegaConf.to_container(cfg, resolve=False)
        inside = [group for group in groups if group.rpartition("/")[2] == key and value in groups[group]]
        if inside:  # pruner=median
            return f"there is no key {key}\n  type {inside[0]}={value}"
        keys = [*groups, *_keys({k: v for k, v in plain.items() if k != "hydra"})]  # type: ignore[union-attr]
        near = _nearest(key, [name for name in keys if f"{name}={value}" != override])  # never what was typed
        parent = key.rpartition(".")[0]
        siblings = ", ".join(k.removeprefix(f"{parent}.") for k in keys if k.startswith(f"{parent}.") and parent)
        hint = f"{parent} has {siblings}" if siblings else "see python train.py --cfg job"
        return f"there is no key {key}\n  " + (f"type {near}={value}" if near else hint)
    return f"{override}: {str(error).splitlines()[0]}\n  see python train.py --help"


def _quoted(key: str, value: str) -> str | None:
    """The override with its value, or the values of its list, in quotes; None if it cannot be read even so."""
    inside = value[1:-1].split(",") if value[:1] == "[" and value[-1:] == "]" else None
    parts = [part.strip() for part in ([value] if inside is None else inside)]
    values = [part if _reads(f"a={part}") else quoted(part) for part in parts]
    text = f"{key}={values[0]}" if inside is None else f"{key}=[{','.join(values)}]"
    return text if _reads(text) else None


def _reads(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def _groups() -> dict[str, list[str]]:
    shipped: dict[str, list[str]] = {}
    for file in sorted(Path(conf_dir()).glob("*/**/*.yaml")):
        shipped.setdefault(str(file.parent.relative_to(conf_dir())), []).append(file.stem)
    return shipped


def _keys(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return [prefix]
    found = [prefix] if prefix else []
    for name, value in node.items():
        if not str(name).startswith("_"):
            found += _keys(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def _nearest(word: str, names: list[str]) -> str | None:
    """The name meant: alike in its last part under the same parent, or the same last part elsewhere."""
    parent, _, last = word.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == parent}
    initials = "".join(part[:1] for part in last.split("_"))
    if "_" in last and initials in siblings:  # learning_rate: lr
        return siblings[initials]
    near = difflib.get_close_matches(last, siblings, n=1, cutoff=0.6)
    if near:
        return siblings[near[0]]
    same = [name for name in names if name.rpartition(".")[2] == last]
    if same:
        return min(same, key=lambda name: name.startswith(("tune.", "search.")))  # not its search
    whole = difflib.get_close_matches(word, names, n=1, cutoff=0.8)
    return whole[0] if whole else None
