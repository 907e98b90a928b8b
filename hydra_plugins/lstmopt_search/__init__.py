"""Where Hydra looks for sweepers. Every Hydra program in the environment imports this: nothing heavy here."""

from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from lstmopt.importing import imported
from lstmopt.search.space_words import take_over

if TYPE_CHECKING:
    from lstmopt.search.sweep import Sweep


class SearchSweeper(Sweeper):
    """`search=tpe` and its like: hands over to `lstmopt.search`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def sweep(self, arguments: list[str]) -> None:
        """Run the search."""
        imported("lstmopt.search.sweep")
        from lstmopt.search.sweep import Sweep

        self.run(Sweep, arguments)

    def run(self, kind: type["Sweep"], arguments: list[str]) -> None:
        """Run a search of this kind."""
        from lstmopt.search.search import run

        assert self.config is not None and self.hydra_context is not None and self.task_function is not None
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        run(kind(self.config, self.hydra_context, arguments), launcher)


class CompareSweeper(SearchSweeper):
    """`search=compare`: hands over to `lstmopt.compare`."""

    def sweep(self, arguments: list[str]) -> None:
        """Run the comparison."""
        imported("lstmopt.compare.variants")
        from lstmopt.compare.variants import Variants

        self.run(Variants, arguments)


take_over()
for name, sweeper in (("lstmopt", SearchSweeper), ("lstmopt_compare", CompareSweeper)):
    ConfigStore.instance().store(
        group="hydra/sweeper",
        name=name,
        node={"_target_": f"hydra_plugins.lstmopt_search.{sweeper.__name__}"},
        provider="lstmopt",
    )
