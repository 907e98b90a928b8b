"""The processes that SLURM's srun started."""

from lstmopt.distributed.ddp import DDP


class SLURM(DDP):
    """`DDP` among the tasks of a SLURM job step; see `DDP` for its arguments. Refused where srun started none.

    Their addresses and ranks are those of SLURM's environment, which Lightning reads.
    """
