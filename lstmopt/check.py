"""Types and ranges of the whole config, checked against the signatures of what it describes."""

import difflib
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from lstmopt import targets
from lstmopt.ranges import CHOICES, OF_SHIPPED, PAIRS, RANGES

TOP_LEVEL: dict[str, Any] = {
    "seed": int,
    "monitor": str,
    "mode": Literal["min", "max"],
    "resume.path": str,
    "resume.allow": list[str],
    "plugins.allow": list[str],
    "tune.lr": bool,
    "tune.batch_size": bool,
    "tune.batch_size_mode": Literal["fastest", "largest", "loss"],
    "tune.batch_size_loss": float | None,
    "search.n_trials": int | None,
    "search.seeds_per_trial": int,
    "search.objectives": list[str] | None,
    "search.timeout": float | None,
    "search.n_jobs": int | None,
    "search.study": str | None,
    "search.storage": str | None,
    "search.max_failure_rate": float,
    "search.max_retries": int,
    "search.heartbeat": float,
    "search.report": bool,
    "search.trial": int | None,
    "search.channel": int | None,
}

FILE_NAMES = ("name", "version", "study")  # they become part of a path


def problems(cfg: DictConfig) -> list[str]:
    """One line for each value of a wrong type or out of range, with what to type instead."""
    plain = typing.cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False, throw_on_missing=False))
    found = []
    for key, value, hint, target in _leaves(plain):
        name = key.rsplit(".", 1)[-1]
        interval, choices = limits(name, target)
        of_two = name in PAIRS and target in targets.shipped() and isinstance(value, list)
        if isinstance(value, str) and "${" in value:
            continue  # what it refers to is checked where it stands
        if name in FILE_NAMES and isinstance(value, str) and not re.fullmatch(r"[\w .+=-]*(?<!\.\.)", value):
            found.append(f"{key}={value!r} is not the name of a file\n  type {key}= and a name without a folder")
        elif value == "???":
            found.append(f"{key} is not set\n  type {key}=...")
        elif isinstance(hint, Unknown):
            known = [word for word in hint.known if word not in ("self", "params")]
            near = difflib.get_close_matches(name, known, n=1)
            parent = key.removesuffix(name)
            instead = f"type {parent}{near[0]}" if near else f"{parent[:-1]} has {', '.join(known)}"
            found.append(f"there is no key {key}\n  {instead}")
        elif choices and value not in choices:
            found.append(
                f"{key}={_shown(value)} is not one of its values\n  type {key}={'|'.join(map(_shown, choices))}"
            )
        elif (hint is not None and not fits(value, hint)) or (of_two and len(value) != 2):
            wanted = f"{describe(hint)}{f' in {interval}' if interval else ''}"
            found.append(f"{key}={_shown(value)} has the wrong type\n  type {key}= and {wanted}")
        elif interval and not _inside(value, interval):
            found.append(f"{key}={_shown(value)} is out of range\n  type {key}= and a number in {interval}")
    return found


def limits(name: str, target: str | None) -> tuple[str | None, tuple[Any, ...]]:
    """The interval and the values that an argument of a class may have; None and () where there are no limits.

    Args:
        name: the last word of the key.
        target: the class; None where the key stands in no class.
    """
    if target is not None and target not in targets.shipped():
        return RANGES.get(name), ()
    own = f"{(target or '').rsplit('.', 1)[-1]}.{name}"
    return OF_SHIPPED.get(own) or OF_SHIPPED.get(name) or RANGES.get(name), CHOICES.get(own, ())


def _leaves(plain: dict[str, Any]) -> Iterator[tuple[str, Any, Any, str | None]]:
    """(key, value, type hint, target) of every top-level value and of every argument of every target."""
    for key, hint in TOP_LEVEL.items():
        family, _, name = key.partition(".")
        yield key, plain[family][name] if name else plain[family], hint, None
    known = {key.partition(".")[0] for key in TOP_LEVEL}
    stack: list[tuple[str, Any]] = [(k, v) for k, v in plain.items() if k not in known]
    if plain["search"]["sampler"]:
        stack += [(f"search.{name}", plain["search"][name]) for name in ("sampler", "pruner", "cluster")]
    while stack:
        path, node = stack.pop(0)
        if not isinstance(node, Mapping):
            continue
        target = node.get("_target_")
        hints, complete = _hints(target) if target else ({}, False)
        for key, value in node.items():
            if complete and key not in hints and not key.startswith("_"):
                yield f"{path}.{key}", value, Unknown(list(hints)), target
            elif isinstance(value, Mapping):
                stack.append((f"{path}.{key}", value))
            elif not key.startswith("_"):
                yield f"{path}.{key}", value, hints.get(key), target


class Unknown(NamedTuple):
    """Stands for the type of an argument that does not exist."""

    known: list[str]


def _hints(target: str) -> tuple[dict[str, Any], bool]:
    """Type hints of all named arguments, and whether there are no others.

    pytorch_optimizer takes any argument and ignores those that it does not know, so for its classes the named ones
    are all.
    """
    function = get_object(target)
    if inspect.isclass(function):
        function = function.__init__
    function = inspect.unwrap(function)
    parameters = inspect.signature(function).parameters
    named = [name for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # a hint that exists for type checkers only
        hints = {}
    complete = len(named) == len(parameters) or target.startswith("pytorch_optimizer.")
    return {name: hints.get(name, Any) for name in named}, complete


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain config value can be an argument of this type; an unknown type takes anything."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple and arguments and Ellipsis not in arguments:
        return isinstance(value, list) and len(value) == len(arguments) and all(map(fits, value, arguments))
    if origin in (list, tuple, Sequence):
        inner = [a for a in arguments if a is not Ellipsis]
        return isinstance(value, list) and (not inner or all(any(fits(v, a) for a in inner) for v in value))
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if hint is list:
        return isinstance(value, list)
    return not inspect.isclass(hint)  # an object: a plain value is none


def describe(hint: Any) -> str:
    """The type in a user's words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        words = [
            describe(option)
            for option in arguments
            if not (inspect.isclass(option) and option.__module__[:5] == "torch")
        ]
        return " or ".join(dict.fromkeys(words))
    if origin is Literal:
        return " or ".join(str(option) for option in arguments)
    if origin in (list, tuple, Sequence):
        return "a list like [a,b]"
    named: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a word",
        type(None): "null",
    }
    return named.get(hint, getattr(hint, "__name__", str(hint)))


def _inside(value: Any, interval: str) -> bool:
    values = value if isinstance(value, list) else [value]
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        above = number > low if interval[0] == "(" else number >= low
        below = number < high if interval[-1] == ")" else number <= high
        if not (above and below):
            return False
    return True


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
