"""A comparison as a search over its variants."""

import re
import shlex
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution
from optuna.pruners import BasePruner

from lstmopt import check, compat, targets
from lstmopt.compare.arm_pruner import ArmPruner
from lstmopt.compare.variant_sampler import KEY
from lstmopt.errors import ConfigError
from lstmopt.search.space import Dimension, Space
from lstmopt.search.study import Study
from lstmopt.search.sweep import Sweep

COMMON = ("seed=", "search", "hydra", "resume", "plugins")  # no variant may have its own


class Variants(Sweep):
    """The base and its variants, each with the same seeds, hence the same weights and batches where shapes agree.

    Raises:
        ConfigError: all variants that cannot work, before any run.
    """

    least_seeds = 2
    seeds_key = "--seeds "

    @property
    def by_seeds(self) -> bool:
        """Its pruner compares seeds."""
        return True

    def _space(self, parsed: list[Override], varied: list[Override]) -> Space:
        """One dimension: which variant."""
        if varied:
            raise ConfigError(
                f"a comparison varies nothing but its variants, and {varied[0].input_line} has several values",
                f"type --variants {' '.join(self._one_each(varied[0]))}",
            )
        variants = self.sampler(0).variants
        if len(variants) < 2:
            raise ConfigError("there is nothing to compare", "type lstmopt-compare --variants optimizer=rmsprop ...")
        return Space([Dimension(KEY, CategoricalDistribution(tuple(variants)))])

    @staticmethod
    def _one_each(override: Override) -> list[str]:
        key = override.get_key_element()
        if not override.is_choice_sweep() and not override.is_range_sweep():
            return [f"{key}=..."]
        return [f"{key}={Override._get_value_element_as_str(value)}" for value in override.sweep_iterator()]

    def _combinations(self) -> list[str]:
        found = super()._combinations()
        if len(self.directions) > 1:
            found.append("a comparison looks at one metric\n  leave search.objectives out, or name one")
        return found

    def pruner(self) -> BasePruner:
        """One that knows how many variants there are."""
        pruner = super().pruner()
        if isinstance(pruner, ArmPruner):
            pruner.variants = len(self.sampler(0).variants) - 1
        return pruner

    def words(self, values: dict[str, Any]) -> list[str]:
        """What is typed for a variant; `+GROUP=option` as `GROUP=option`, for every group has its choice already."""
        chosen, words = self.config.hydra.runtime.choices, shlex.split(values[KEY])
        named = [re.fullmatch(r"\+([\w/]+)=\w+", word) for word in words]  # no list: +callbacks=[a] adds to the others
        return [word[1:] if one and one[1] in chosen else word for word, one in zip(words, named, strict=True)]

    def _try_one(self) -> None:
        """Compose all of them, check each as a run would be checked, and read the base's data."""
        problems = []
        for variant in self.sampler(0).variants:
            try:
                words = self.words({KEY: variant})
                common = [word for word in words if word.lstrip("+").startswith(COMMON)]
                if common:
                    raise ConfigError(f"{common[0]} is the same for all", f"type {common[0]} before --variants")
                self._refuse_several(words)
                config = self.composed(words)
                own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
                found = targets.problems(own, [*self.fixed, *words]) or check.problems(own) or compat.problems(own)
            except (ConfigError, ValueError) as error:
                found = [str(error)]
            problems += [f"{variant or 'the base'}: {problem}" for problem in found]
        self._refuse(list(dict.fromkeys(problems)))
        self.read_data(self.composed([]))

    def _refuse_several(self, words: list[str]) -> None:
        try:
            parsed = OverridesParser.create().parse_overrides(words)
        except HydraException:  # told where it is composed
            return
        for number, override in enumerate(parsed):
            if override.is_sweep_override():
                each = [[*words[:number], one, *words[number + 1 :]] for one in self._one_each(override)]
                raise ConfigError(
                    f"{words[number]} has several values",
                    f"type --variants {shlex.join(map(' '.join, each))}",
                )

    def label(self, number: int) -> str:
        """A variant by its name in tables."""
        return self.sampler(0).variants[number] or "base"

    def report(self, found: dict[str, Any], study: Study) -> None:
        """Statistics, `compare.json`, `report.html`, and what TensorBoard shows."""
        from lstmopt.compare import report

        report.write(study, self)
