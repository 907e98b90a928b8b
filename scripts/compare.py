"""`lstmopt-compare` from a checkout: python scripts/compare.py data=co2 --variants optimizer=rmsprop --seeds 8"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lstmopt.compare.command import main

if __name__ == "__main__":
    main()
