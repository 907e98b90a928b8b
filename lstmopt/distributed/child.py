"""A further process of a training: `python -m lstmopt.distributed.child`, its config on standard input."""

import pickle
import sys

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals

from lstmopt.errors import Interrupted, UserError


def main() -> None:
    """Join the run of the process that started this one.

    Exit codes are the program's. What all processes notice is told by the first.
    """
    config, hydra_config = pickle.load(sys.stdin.buffer)
    setup_globals()
    HydraConfig.instance().set_config(hydra_config)
    from lstmopt.distributed import together
    from lstmopt.run import run

    try:
        run(config)
    except Interrupted as error:
        sys.exit(128 + error.signum)
    except UserError as error:
        if not together.several():
            print(f"lstmopt: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
