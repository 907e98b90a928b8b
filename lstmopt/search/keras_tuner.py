"""Keras Tuner's oracles as a sampler."""

import fcntl
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from lstmopt.callbacks.last_checkpoint import NAME
from lstmopt.errors import ConfigError
from lstmopt.search.by_name import ByName
from lstmopt.search.space import Dimension, Space

INSTALL = "type pip install 'lstmopt[keras]'"
PROPOSAL, SURPLUS = "proposal", "surplus"
ENDED = {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}


class Exhausted(Exception):
    """There is nothing left to propose."""


class KerasTuner(ByName):
    """Asks one of Keras Tuner's oracles for the values of a trial.

    The study is the record: an oracle is made anew for each proposal and told all trials in the order in which they
    began and ended, so that it goes on after a restart, and in several processes, which take turns. Bayesian draws its
    random numbers from the seed and the trial's number. Hyperband trains few epochs at first; a trial of a later round
    goes on from the `last.ckpt` of the trial that it repeats. Keras runs on torch.

    Args:
        oracle: which; `bayesian` is a Gaussian process with an upper confidence bound, `hyperband` is that of Li et al.
            (2016), `grid` has ten values for a range without a step.
        num_initial_points: trials that `bayesian` draws at random first; None is three for each key.
        alpha: noise that `bayesian` expects.
        beta: how far `bayesian` looks away from what it knows.
        max_epochs: of the last round of `hyperband`.
        reduction_factor: one in so many goes on in `hyperband`.
        seed: of all draws.

    Attributes:
        space: what is varied; the search puts it here.
        folder: of the sweep; likewise.

    Raises:
        ConfigError: Keras Tuner, or what it needs, is not installed.
    """

    def __init__(
        self,
        oracle: Literal["bayesian", "hyperband", "random", "grid"] = "bayesian",
        num_initial_points: int | None = None,
        alpha: float = 1e-4,
        beta: float = 2.6,
        max_epochs: int = 100,
        reduction_factor: int = 3,
        seed: int | None = None,
    ) -> None:
        lacking = [name for name in ("keras_tuner", "six", "sklearn") if importlib.util.find_spec(name) is None]
        if lacking:
            raise ConfigError(f"search=keras_tuner needs {' and '.join(lacking)}", INSTALL)
        self.oracle, self.num_initial_points, self.alpha, self.beta = oracle, num_initial_points, alpha, beta
        self.max_epochs, self.reduction_factor, self.seed = max_epochs, reduction_factor, seed or 0
        self.space: Space | None = None
        self.folder: Path | None = None
        self._proposed: dict[int, dict[str, Any]] = {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value out of the oracle's proposal, which is made when the first one is asked for.

        Raises:
            Exhausted: the oracle has no more.
        """
        if trial.number not in self._proposed:
            kept = _kept(trial, study._storage)
            self._proposed[trial.number] = (kept or self._propose(study, trial))["values"]
        written = self._proposed[trial.number][param_name]
        if isinstance(param_distribution, CategoricalDistribution):
            return next(choice for choice in param_distribution.choices if json.dumps(choice) == written)
        assert isinstance(param_distribution, FloatDistribution | IntDistribution)
        value = min(max(written, param_distribution.low), param_distribution.high)
        return int(value) if isinstance(param_distribution, IntDistribution) else float(value)

    def words(self, trial: Trial) -> list[str]:
        """What a trial is started with beside its values: the epochs of its round."""
        epochs = _kept(trial, trial.storage)["values"].get("tuner/epochs")
        return [f"trainer.max_epochs={epochs}"] if epochs else []

    def prepare(self, trial: Trial, folder_of: Callable[[int], Path]) -> None:
        """Put the last checkpoint of the trial that this one repeats into its folder, if it has none.

        Args:
            trial: one of `hyperband`.
            folder_of: the run folder of a trial.
        """
        before = _kept(trial, trial.storage)["goes_on_from"]
        if before is None:
            return
        source, target = (folder_of(number) / "checkpoints" / NAME for number in (before, trial.number))
        if source.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(".part")
            shutil.copyfile(source, part)
            os.replace(part, target)

    def _propose(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """Ask the oracle, and keep what it says and what it knew."""
        with self._alone():
            trials = {one.number: one for one in study.get_trials(deepcopy=False) if SURPLUS not in one.user_attrs}
            replay = Replay(self, study, trials, trial.number)
            proposal = replay.ask()
            study._storage.set_trial_user_attr(trial._trial_id, PROPOSAL, proposal)
        return proposal

    @contextmanager
    def _alone(self) -> Iterator[None]:
        assert self.folder is not None
        with open(self.folder / ".oracle.lock", "a") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            yield


class Replay:
    """An oracle that has seen the trials of a study.

    Args:
        sampler: of the oracle.
        study: their study.
        trials: by number.
        number: of the trial that is proposed.
    """

    def __init__(self, sampler: KerasTuner, study: Study, trials: dict[int, FrozenTrial], number: int) -> None:
        os.environ["KERAS_BACKEND"] = "torch"
        self.sampler, self.trials = sampler, trials
        self.maximize = study.directions[0] == StudyDirection.MAXIMIZE
        # an order of trials is what hyperband and grid are; the others draw
        self.in_order = sampler.oracle in ("hyperband", "grid")
        seed = sampler.seed if self.in_order else sampler.seed * 1_000_003 + number
        self.oracle = self._made(seed % 2**31 + 1)
        self.numbers: dict[str, int] = {}
        self.ended: list[int] = []
        known = [one for one in trials.values() if PROPOSAL in one.user_attrs]
        for one in sorted(known, key=lambda one: one.user_attrs[PROPOSAL]["order"]):
            proposal = one.user_attrs[PROPOSAL]
            self._end(proposal["ended"])
            self._begin(one.number, proposal["values"])
        self._end([one.number for one in known if one.state in ENDED or sampler.oracle == "grid"])

    def ask(self) -> dict[str, Any]:
        """The next proposal.

        Raises:
            Exhausted: there is none.
        """
        ended = list(self.ended)
        created = self.oracle.create_trial("next")
        if created.status != "RUNNING":
            raise Exhausted
        values = dict(created.hyperparameters.values)
        before = self.numbers.get(values.get("tuner/trial_id", ""))
        return {"order": len(self.numbers), "ended": ended, "values": values, "goes_on_from": before}

    def _made(self, seed: int) -> Any:
        from keras_tuner import Objective, oracles

        sampler = self.sampler
        common = {
            "objective": Objective("value", "max" if self.maximize else "min"),
            "hyperparameters": self._hyperparameters(),
            "seed": seed,
            "max_consecutive_failed_trials": 10**9,  # search.max_failure_rate is for that
        }
        if sampler.oracle == "bayesian":
            bayesian = {"num_initial_points": sampler.num_initial_points, "alpha": sampler.alpha, "beta": sampler.beta}
            oracle = oracles.BayesianOptimizationOracle(max_trials=None, **bayesian, **common)
        elif sampler.oracle == "hyperband":
            rounds = {"max_epochs": sampler.max_epochs, "factor": sampler.reduction_factor}
            oracle = oracles.HyperbandOracle(hyperband_iterations=None, **rounds, **common)
        elif sampler.oracle == "random":
            oracle = oracles.RandomSearchOracle(max_trials=None, **common)
        else:
            oracle = oracles.GridSearchOracle(max_trials=None, **common)
        oracle.verbose = 0
        oracle.save = lambda: None  # the study is the record
        oracle._save_trial = lambda trial: None
        return oracle

    def _hyperparameters(self) -> Any:
        """The space in Keras Tuner's words; a choice is written as JSON."""
        from keras_tuner import HyperParameters

        assert self.sampler.space is not None
        found = HyperParameters()
        varied = {dimension.key: dimension for dimension in self.sampler.space.dimensions}
        for dimension in self.sampler.space.dimensions:
            fixed = {key: values for key, values in dimension.when.items() if key not in varied}
            if any(self.sampler.space.fixed.get(key) not in values for key, values in fixed.items()):
                continue
            with ExitStack() as scopes:
                for key, values in dimension.when.items():
                    if key in varied:
                        chosen = isinstance(varied[key].distribution, CategoricalDistribution)
                        written = [json.dumps(value) if chosen else value for value in values]
                        scopes.enter_context(found.conditional_scope(key, written))
                _add(found, dimension)
        return found

    def _begin(self, number: int, values: dict[str, Any]) -> None:
        """Let the oracle begin a trial of the study."""
        if not self.in_order:
            self.oracle.populate_space = lambda trial_id: {"status": "RUNNING", "values": dict(values)}
        created = self.oracle.create_trial(str(number))
        created.hyperparameters.values = dict(values)
        self.numbers[created.trial_id] = number
        if not self.in_order:
            del self.oracle.populate_space

    def _end(self, numbers: list[int]) -> None:
        """Let the oracle hear how trials ended."""
        for number in numbers:
            if number in self.ended:
                continue
            trial = self.trials[number]
            known = self.oracle.ongoing_trials[str(number)]
            values = list(trial.values or trial.intermediate_values.values())
            best = (max if self.maximize else min)(values, default=None)
            known.status = "COMPLETED" if best is not None else "FAILED"
            if best is not None:
                self.oracle.update_trial(known.trial_id, {"value": best})
            self.oracle.end_trial(known)
            self.ended.append(number)


def _kept(trial: Any, storage: BaseStorage) -> Any:
    """The proposal in the database: Optuna's trials hold a copy from when they were opened."""
    return storage.get_trial(trial._trial_id).user_attrs.get(PROPOSAL)


def _add(found: Any, dimension: Dimension) -> None:
    distribution = dimension.distribution
    if isinstance(distribution, CategoricalDistribution):
        found.Choice(dimension.key, [json.dumps(choice) for choice in distribution.choices])
        return
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kind = found.Int if isinstance(distribution, IntDistribution) else found.Float
    step = None if distribution.log else distribution.step
    kind(
        dimension.key, distribution.low, distribution.high, step=step, sampling="log" if distribution.log else "linear"
    )
