"""Where Hydra looks for sweepers. Every Hydra program in the environment imports this: nothing heavy here."""

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SearchSweeper(Sweeper):
    """`search=tpe` and its like: hands over to `lstmopt.search`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def sweep(self, arguments: list[str]) -> None:
        """Run the search."""
        from lstmopt.search.sweep import run

        assert self.config is not None and self.hydra_context is not None and self.task_function is not None
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        run(self.config, self.hydra_context, launcher, arguments)


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="lstmopt",
    node={"_target_": "hydra_plugins.lstmopt_search.SearchSweeper"},
    provider="lstmopt",
)
