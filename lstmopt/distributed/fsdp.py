"""A model whose weights, gradients and optimizer state are spread over several GPUs."""

from datetime import timedelta
from typing import Literal

from pytorch_lightning.strategies import FSDPStrategy

from lstmopt.distributed.processes import Processes


class FSDP(FSDPStrategy):
    """Lightning's strategy, with processes that join the run of the first. GPUs only.

    Args:
        sharding_strategy: `FULL_SHARD` spreads all three, `SHARD_GRAD_OP` leaves the weights whole between the passes,
            `NO_SHARD` is like ddp.
        state_dict_type: `full`: a checkpoint is one file, as that of any other run.
        cpu_offload: keep weights in main memory between their uses.
        process_group_backend: None is nccl.
        timeout_minutes: how long a process waits for the others.

    Reference: Zhao et al. 2023, PyTorch FSDP.
    """

    def __init__(
        self,
        sharding_strategy: Literal["FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD"] = "FULL_SHARD",
        state_dict_type: Literal["full"] = "full",
        cpu_offload: bool = False,
        process_group_backend: Literal["nccl"] | None = None,
        timeout_minutes: float = 30.0,
    ) -> None:
        super().__init__(
            sharding_strategy=sharding_strategy,
            state_dict_type=state_dict_type,
            cpu_offload=cpu_offload,
            process_group_backend=process_group_backend,
            timeout=timedelta(minutes=timeout_minutes),
        )

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = Processes(self.cluster_environment, self.num_processes, self.num_nodes)
