"""What a search varies, the same for every engine."""

import json
import re
import shlex
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from lstmopt.errors import ConfigError
from lstmopt.quoting import quoted
from lstmopt.search.space_words import SPACE, WORDS

SHAPES = "a list of choices, or {low: ..., high: ..., log: true}, or {low: ..., high: ..., step: ...}"


@dataclass(frozen=True)
class Dimension:
    """One key that is varied.

    Attributes:
        key: as it is typed: `optimizer`, `optimizer.lr`.
        distribution: Optuna's, of the values.
        stepped: a range was written with a step, so that a grid has all of its values.
        when: it exists only where these keys have one of these values.
    """

    key: str
    distribution: BaseDistribution
    stepped: bool = False
    when: dict[str, list[Any]] = field(default_factory=dict)

    def exists(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it has a value, given those that were chosen before it."""
        return all(chosen.get(key) in values for key, values in self.when.items())

    def values(self, per_range: int) -> list[Any]:
        """All values, or so many of a range without a step, evenly spread (in the logarithm where that is asked
        for)."""
        if isinstance(self.distribution, CategoricalDistribution):
            return list(self.distribution.choices)
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        low, high, step = self.distribution.low, self.distribution.high, self.distribution.step
        if self.stepped and step is not None:
            exact = [low + number * step for number in range(round((high - low) / step) + 1)]
            return [float(f"{value:.12g}") if isinstance(value, float) else value for value in exact]
        spread = np.geomspace(low, high, per_range) if self.distribution.log else np.linspace(low, high, per_range)
        if isinstance(self.distribution, IntDistribution):
            return sorted({round(value) for value in spread})
        return [float(f"{min(max(value, low), high):.6g}") for value in spread]


class Space:
    """The dimensions of a search, those that others depend on first.

    Args:
        dimensions: in any order.
        fixed: values that conditions may refer to without their being varied, as the option of a group.

    Raises:
        ConfigError: nothing is varied, or a condition refers to a key that has no value.
    """

    def __init__(self, dimensions: list[Dimension], fixed: Mapping[str, Any] | None = None) -> None:
        self.fixed = dict(fixed or {})
        self.dimensions: list[Dimension] = []
        left = list(dimensions)
        while left:
            known = {dimension.key for dimension in self.dimensions} | self.fixed.keys()
            ready = [one for one in left if one.when.keys() <= known]
            if not ready:
                lost = sorted(left[0].when.keys() - known)
                raise ConfigError(f"search.space: {left[0].key} depends on {lost[0]}, which has no value", "mend when:")
            self.dimensions += ready
            left = [one for one in left if one not in ready]
        if not self.dimensions:
            raise ConfigError(
                "the search has nothing to vary", "type optimizer.lr='interval(1e-4,1e-1)', or search/space=lstm"
            )

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Values for one trial; those that it has already are kept."""
        chosen: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.exists(self.fixed | chosen):
                chosen[dimension.key] = _suggested(trial, dimension.key, dimension.distribution)
        return chosen

    def points(self, per_range: int) -> list[dict[str, Any]]:
        """Every point of a grid, each once; a range without a step counts with this many values."""
        axes = [dimension.values(per_range) for dimension in self.dimensions]
        found: dict[str, dict[str, Any]] = {}
        for combination in product(*axes):
            chosen: dict[str, Any] = {}
            for dimension, value in zip(self.dimensions, combination, strict=True):
                if dimension.exists(self.fixed | chosen):
                    chosen[dimension.key] = value
            found.setdefault(json.dumps(chosen), chosen)
        return list(found.values())

    def probes(self, groups: Container[str]) -> list[dict[str, Any]]:
        """Points that have among them every option of these groups and every key; each else has its first value."""
        found: list[dict[str, Any]] = []
        for one in self.dimensions:
            for value in one.values(2) if one.key in groups else one.values(2)[:1]:
                point = self._point(self._needed(one) | {one.key: value})
                if one.key in point and not any((one.key, value) in other.items() for other in found):
                    found.append(point)
        return found

    def _needed(self, dimension: Dimension) -> dict[str, Any]:
        """Values of other keys with which a dimension exists."""
        needed: dict[str, Any] = {}
        for other in (other for other in self.dimensions if other.key in dimension.when):
            allowed = dimension.when[other.key]
            if isinstance(other.distribution, CategoricalDistribution):
                allowed = [value for value in other.distribution.choices if value in allowed]
            if allowed:
                needed |= self._needed(other) | {other.key: allowed[0]}
        return needed

    def _point(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.exists(self.fixed | chosen):
                chosen[dimension.key] = wanted.get(dimension.key, dimension.values(2)[0])
        return chosen

    def described(self) -> dict[str, Any]:
        """Plain data from which two spaces can be compared."""
        return {
            one.key: {"distribution": repr(one.distribution), "when": {k: list(v) for k, v in one.when.items()}}
            for one in self.dimensions
        }


def chosen(config: DictConfig, parsed: list[Override], varied: list[Override]) -> Space:
    """What a command varies: what was typed takes the place of the space file, unless a space was typed too.

    Args:
        config: the composed config, with Hydra's part.
        parsed: all that was typed.
        varied: that which has several values.

    Raises:
        ConfigError: nothing is varied, or it cannot be read.
    """
    for override in (one for one in varied if str(one.key_or_group).startswith(f"{SPACE}.")):
        word = str(override.input_line).lstrip("+").removeprefix(f"{SPACE}.")
        raise ConfigError(f"{override.input_line} has several values", f"type {shlex.quote(word)}")
    mine = typed(varied)
    names = [str(override.key_or_group) for override in parsed]
    written: Any = OmegaConf.to_container(config.search.space, resolve=True) if config.search.space else {}
    if mine and not any(name.startswith(("search/space", SPACE)) for name in names):
        written = {}
    keys = {dimension.key for dimension in mine}
    left = {key: value for key, value in written.items() if key not in {*keys, *names} and value is not None}
    options = dict(config.hydra.runtime.choices)
    fixed = {key: value for key, value in options.items() if "/" not in key and key not in {*keys, *left}}
    if not left:
        return Space(mine, fixed)
    asked = {name for value in left.values() if isinstance(value, dict) for name in value.get("when") or {}}
    fixed |= {name: OmegaConf.select(config, name) for name in asked if "." in name and name not in left}
    return Space([*read(left, fixed | dict.fromkeys(keys)).dimensions, *mine], fixed)


def read(plain: Mapping[str, Any], fixed: Mapping[str, Any] | None = None) -> Space:
    """A space as it stands in YAML.

    Args:
        plain: by key a list of choices, or a mapping of low, high, log, step, choices, when.
        fixed: see `Space`.

    Raises:
        ConfigError: all that is wrong in it.
    """
    dimensions, problems = [], []
    for key, written in plain.items():
        if written is None:  # search.space.KEY=null takes a key out
            continue
        try:
            dimensions.append(_dimension(key, written))
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return Space(dimensions, fixed)


def typed(overrides: list[Override]) -> list[Dimension]:
    """The dimensions in Hydra's words: `a,b`, `choice(a,b)`, `range(1,4)`, `interval(0,1)`, `tag(log,interval(1,9))`.

    Raises:
        ConfigError: an empty range.
    """
    found = []
    for override in overrides:
        key, sweep = override.get_key_element(), override.value()
        if isinstance(sweep, IntervalSweep):
            mapping = {"low": sweep.start, "high": sweep.end, "log": "log" in sweep.tags}
            found.append(_dimension(key, mapping))
        elif isinstance(sweep, RangeSweep) and len(steps := list(sweep.range())) > 1:
            ends = {"low": min(steps), "high": max(steps)}
            found.append(_dimension(key, ends | {"step": abs(sweep.step)}))
        else:
            choices = [Override._convert_value(value) for value in override.sweep_iterator()]
            found.append(_dimension(key, choices))
    return found


def override(key: str, value: Any) -> str:
    """What is typed for this value; of a fraction six digits."""
    if value is None or isinstance(value, bool):
        return f"{key}={json.dumps(value)}"
    if isinstance(value, str) and not re.fullmatch(r"[\w.+/:-]+|\[.*\]|\{.*\}", value, re.ASCII):
        return f"{key}={quoted(value)}"
    return f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}"


def _dimension(key: str, written: Any) -> Dimension:
    one = f"type {override(key, written)} for one value, or " if _simple(written) else ""
    wrong = ConfigError(f"search.space: {key} is {json.dumps(written)[:60]}", f"{one}write {SHAPES}")
    if isinstance(written, list):
        written = {"choices": written}
    if not isinstance(written, Mapping) or not written.keys() <= WORDS:
        raise wrong
    when = {name: list(_listed(value)) for name, value in (written.get("when") or {}).items()}
    if "choices" in written:
        choices = written["choices"]
        if not isinstance(choices, list) or not choices or written.keys() & {"low", "high", "log", "step"}:
            raise wrong
        as_json = partial(json.dumps, separators=(",", ":"), ensure_ascii=False)
        plain = [value if _simple(value) else as_json(value) for value in choices]
        return Dimension(key, CategoricalDistribution(tuple(dict.fromkeys(plain))), when=when)
    low, high, step, log = written.get("low"), written.get("high"), written.get("step"), written.get("log", False)
    numbers = [number for number in (low, high, step) if number is not None]
    if low is None or high is None or not all(_number(number) for number in numbers) or not isinstance(log, bool):
        raise wrong
    if low >= high or (log and low <= 0) or (step is not None and (log or step <= 0)):
        raise ConfigError(
            f"search.space: {key} goes from {low} to {high}" + (f" in steps of {step}" if step is not None else ""),
            "low is less than high, low is above 0 with log, a step is above 0 and without log",
        )
    if all(isinstance(number, int) for number in numbers):
        return Dimension(key, IntDistribution(low, high, log=log, step=step or 1), step is not None, when)
    return Dimension(key, FloatDistribution(float(low), float(high), log=log, step=step), step is not None, when)


def _suggested(trial: Trial, key: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _listed(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list) else [value]


def _simple(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
