"""What the processes of a search have in common."""

import sys
import warnings
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.pruners import BasePruner

from lstmopt import check, compat, targets
from lstmopt.build import make
from lstmopt.errors import ConfigError
from lstmopt.launched import BASIC
from lstmopt.mistakes import explain
from lstmopt.quoting import quoted
from lstmopt.search import report, space
from lstmopt.search.objectives import FIELDS, directions, saved_steps
from lstmopt.search.study import Study
from lstmopt.search.workers import one_thread
from lstmopt.tune import settle


class Sweep:
    """Everything that the processes of a search have in common.

    Args:
        config: the composed config, with Hydra's part.
        context: Hydra's.
        arguments: what was typed.

    Attributes:
        folder: the sweep's; trial 3 lies in its folder 3.
        fixed: what was typed for all trials.
        space: what is varied.

    Raises:
        ConfigError: all that is wrong, before any trial.
        DataError: the data are missing or not usable.
    """

    least_seeds = 5  # where a pruner compares seeds
    seeds_key = "search.seeds_per_trial="

    def __init__(self, config: DictConfig, context: HydraContext, arguments: list[str]) -> None:
        self.config, self.context = config, context
        self.search = config.search
        self.folder = Path(config.hydra.sweep.dir).absolute()
        parsed = OverridesParser.create(context.config_loader).parse_overrides(arguments)
        varied = [override for override in parsed if override.is_sweep_override()]
        once = [override for override in parsed if not override.is_sweep_override()]
        self.fixed = [str(one.input_line) for one in once if not str(one.key_or_group).startswith(space.SPACE)]
        several = {override.input_line for override in varied}
        self._typed = [word for word in sys.argv[1:] if word not in several]
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        self._refuse(targets.problems(own, self.fixed))
        self._refuse(check.problems(own) or compat.problems(own))
        self.space = self._space(parsed, varied)
        self._refuse(settle.contradictions(own, [d.key for d in self.space.dimensions]))
        self.directions = directions(self.search.objectives, config.monitor, config.mode)
        self._unpruned(parsed)
        self._refuse(self._combinations())
        self._try_one()

    @staticmethod
    def _refuse(problems: list[str]) -> None:
        if problems:
            raise ConfigError("\n".join(problems))

    def _space(self, parsed: list[Override], varied: list[Override]) -> space.Space:
        """What is varied."""
        return space.chosen(self.config, parsed, varied)

    def _unpruned(self, parsed: list[Override]) -> None:
        """With several objectives the pruner that nobody asked for is left out."""
        chosen, default = self.config.hydra.runtime.choices.get("search/pruner"), "asha"
        asked = any(str(override.key_or_group).startswith(("search/pruner", "search.pruner")) for override in parsed)
        if len(self.directions) > 1 and chosen == default and not asked:
            self.fixed.append("search/pruner=none")
            self.search.pruner = self.composed([]).search.pruner
            print("several objectives cannot be pruned: search/pruner=none")

    def _combinations(self) -> list[str]:
        """What the engine or the pruner cannot do."""
        found, several = [], len(self.directions) > 1
        if several and not self.search.pruner._target_.endswith("NopPruner"):
            found.append("several objectives cannot be pruned\n  type search/pruner=none")
        if not several and not self.by_seeds and not self.search.pruner._target_.endswith("NopPruner"):
            found += self._pruned_by_another()
        if several and self.search.sampler._target_.endswith("CmaEsSampler"):
            found.append("search=cmaes knows one objective\n  type search=nsga2, or one of search.objectives")
        if self.search.n_jobs is None and not self.search.cluster:
            found.append("search.n_jobs=null is for search=ray_tune\n  type search.n_jobs=1 or more")
        if self.by_seeds and self.search.seeds_per_trial < self.least_seeds:
            found.append(
                f"seeds are compared, and one needs several\n  type {self.seeds_key}{self.least_seeds} or more"
            )
        return found

    def _pruned_by_another(self) -> list[str]:
        """A pruner sees the monitored metric after each epoch, and so gives up by it."""
        (name, direction), monitored = next(iter(self.directions.items())), self.config.monitor
        wanted = f"{self.config.mode}imize"
        if (name, direction) == (monitored, wanted) or self.search.sampler.get("oracle") == "hyperband":
            return []
        if name == monitored:
            own = f"search.objectives=[{name}:{wanted}], or "
        elif name in FIELDS or name.startswith("test/"):
            own = ""
        else:
            own = f"monitor={name} mode={direction.removesuffix('imize')}, or "
        return [
            f"the pruner would give trials up by {monitored}, mode={self.config.mode}, and the search has another"
            f" objective, {name}:{direction}\n  type {own}search/pruner=none"
        ]

    def _try_one(self) -> None:
        """Compose each option and each key once and read the data, so that one that does not exist, or a file that
        cannot be used, is told before any trial."""
        groups = self.config.hydra.runtime.choices
        configs = []
        for point in self.space.probes(groups) or [{}]:
            try:
                configs.append(self.composed(self.words(point)))
            except ConfigError as error:
                options = self.words({key: value for key, value in point.items() if key in groups})
                unsaid = " ".join(word for word in options if word not in str(error))
                raise ConfigError(f"{unsaid}: {error}" if unsaid else str(error)) from error
        self.read_data(configs[0])

    def read_data(self, config: DictConfig) -> None:
        """Read the data of a trial, where trials run on this machine.

        Raises:
            DataError: they are missing or not usable.
        """
        if not self.search.cluster and self.config.hydra.launcher._target_ == BASIC:
            with one_thread():
                make(config.data).load()

    def words(self, values: dict[str, Any]) -> list[str]:
        """What is typed for a point of the space."""
        return [space.override(key, value) for key, value in values.items()]

    def composed(self, words: list[str]) -> DictConfig:
        """The config of a trial.

        Raises:
            ConfigError: a key or an option does not exist.
        """
        try:
            return self.context.config_loader.load_sweep_config(self.config, [*self.fixed, *words])
        except (HydraException, OmegaConfBaseException) as error:
            told = explain(error, [*self._typed, *words])
            first = (str(error) or str(error.__cause__)).splitlines()[0]
            raise ConfigError(told or f"{' '.join(words)} cannot be composed: {first}") from error

    @property
    def storage(self) -> str:
        """URL of the database."""
        return str(self.search.storage or f"sqlite:///{self.folder / 'study.db'}")

    def study(self) -> Study:
        """This process' view of the study, made where there is none.

        Raises:
            ConfigError: there is one of another space, or the database cannot be used.
        """
        warnings.filterwarnings("ignore", module="optuna")
        pruner, grid = self.pruner(), self.sampler(0)
        self.folder.mkdir(parents=True, exist_ok=True)
        n_trials = self.search.n_trials or (len(grid.points()) if hasattr(grid, "points") else 50)
        if hasattr(grid, "points"):
            n_trials = min(n_trials, len(grid.points()))
        study = Study(
            self.storage,
            self.search.study,
            list(self.directions.values()),
            self.sampler,
            pruner,
            n_trials,
            self.search.max_retries,
            self.search.heartbeat,
            self.folder / ".study.lock",
            self.progress,
        )
        mine = {"space": self.space.described(), "objectives": self.directions}
        before = study.agree("space", mine)
        if before != mine:
            differing = [k for k in mine["space"] | before["space"] if mine["space"].get(k) != before["space"].get(k)]
            raise ConfigError(
                f"the study {self.search.study} varies something else: {', '.join(differing) or 'other objectives'}",
                "type search.study=NAME for a new one",
            )
        return study

    def pruner(self) -> BasePruner:
        """What gives trials up."""
        pruner: BasePruner = make(self.search.pruner)
        return pruner

    def sampler(self, number: int) -> Any:
        """The sampler of one trial; its seed is of the search's seed and the trial's number."""
        own = self.search.sampler._target_
        seed = self.config.seed if "Grid" in own or "QMC" in own else (self.config.seed * 1_000_003 + number) % 2**31
        sampler = make(self.search.sampler, seed=seed)
        if hasattr(sampler, "space"):
            sampler.space = self.space
        if hasattr(sampler, "folder"):
            sampler.folder = self.folder
        return sampler

    def overrides(self, trial_number: int, values: dict[str, Any]) -> list[list[str]]:
        """What each job of a trial is started with: one, or one for each seed."""
        common = [*self.fixed, *self.words(values), f"search.study={quoted(self.search.study)}"]
        common.append(f"hydra.sweep.dir={quoted(str(self.folder))}")
        if not self.search.storage:
            common.append(f"search.storage={quoted(self.storage)}")
        found = []
        for k in range(self.search.seeds_per_trial):
            words = [*common, f"hydra.sweep.subdir={self.run_folder(trial_number, k).relative_to(self.folder)}"]
            if self.search.seeds_per_trial > 1:
                words.append(f"seed={self.config.seed + k}")
            if k == 0 and not self.by_seeds and self.search.sampler.get("oracle") != "hyperband":
                words.append(f"search.trial={trial_number}")
            found.append(words)
        return found

    @property
    def by_seeds(self) -> bool:
        """Whether the pruner is told the seeds of a trial, and not its epochs."""
        return str(self.search.pruner._target_).endswith("WilcoxonPruner")

    def run_folder(self, trial_number: int, k: int) -> Path:
        """Where the run of the k-th seed of a trial lies."""
        folder = self.folder / str(trial_number)
        return folder / str(k) if self.search.seeds_per_trial > 1 else folder

    def progress(self, trial_number: int) -> list[int]:
        """Steps that are saved of each seed of a trial."""
        runs = [self.run_folder(trial_number, k) for k in range(self.search.seeds_per_trial)]
        return [saved_steps(folder) for folder in runs]

    def report(self, found: dict[str, Any], study: Study) -> None:
        """Write and show what was found, beside `sweep.json`."""
        report.write(found, study, self)
