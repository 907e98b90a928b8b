"""`lstmopt-compare data=co2 --variants optimizer=rmsprop gradient_clip=none --seeds 8`."""

import argparse
import sys

from lstmopt import train
from lstmopt.quoting import quoted


def main() -> None:
    """Compare variants with a base; `search=compare` of the program with shorter words.

    What stands before `--variants`, or behind `--seeds` and its number, is typed for all runs, also the base's. A
    variant of several words is quoted: `--variants optimizer=sgd "lr_scheduler=one_cycle optimizer.lr=0.01"`. The same
    line again goes on where it stood.
    """
    parser = argparse.ArgumentParser(prog="lstmopt-compare", description=main.__doc__)
    parser.add_argument("base", nargs="*", metavar="OVERRIDE", help="for the base and all variants")
    parser.add_argument("--variants", nargs="+", required=True, metavar="OVERRIDES", help="what each one changes")
    parser.add_argument("--seeds", type=int, default=8, help="runs of each, from seed on (8)")
    parser.add_argument("--jobs", type=int, default=1, help="variants at a time, on this machine (1)")
    parser.add_argument("--config-dir", help="a folder with options of your own")
    options = parser.parse_intermixed_args()
    words = ["-m", "search=compare", f"search.sampler.variants=[{','.join(map(quoted, options.variants))}]"]
    words += [f"search.seeds_per_trial={options.seeds}", f"search.n_jobs={options.jobs}", *options.base]
    words += ["--config-dir", options.config_dir] if options.config_dir else []
    sys.argv = ["lstmopt-compare", *words]
    train.main()


if __name__ == "__main__":
    main()
