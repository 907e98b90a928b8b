"""The same model in several processes, each of which computes the gradient of its part of a batch."""

from datetime import timedelta
from typing import Literal

from pytorch_lightning.strategies import DDPStrategy

from lstmopt.distributed.processes import Processes


class DDP(DDPStrategy):
    """Lightning's strategy, with processes that join the run of the first.

    With lstmopt's data and module the training is that of one process with `world_size * data.batch_size` sequences per
    batch, but for rounding; dropout masks differ.

    Args:
        process_group_backend: `nccl` or `gloo`; None is nccl on GPUs, gloo on CPUs.
        timeout_minutes: how long a process waits for the others.
        find_unused_parameters: look in every step for weights that the loss does not depend on.
        gradient_as_bucket_view: gradients are views of what is sent, so that they are not copied.
        static_graph: every step uses the same weights in the same order.
        bucket_cap_mb: MB of gradients sent at once; None is torch's choice.

    Reference: Li et al. 2020, PyTorch Distributed.
    """

    def __init__(
        self,
        process_group_backend: Literal["nccl", "gloo"] | None = None,
        timeout_minutes: float = 30.0,
        find_unused_parameters: bool = False,
        gradient_as_bucket_view: bool = True,
        static_graph: bool = False,
        bucket_cap_mb: int | None = None,
    ) -> None:
        super().__init__(
            process_group_backend=process_group_backend,
            timeout=timedelta(minutes=timeout_minutes),
            find_unused_parameters=find_unused_parameters,
            gradient_as_bucket_view=gradient_as_bucket_view,
            static_graph=static_graph,
            bucket_cap_mb=bucket_cap_mb,
        )

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = Processes(self.cluster_environment, self.num_processes, self.num_nodes)
