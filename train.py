"""`python train.py ...` is `lstmopt-train ...` from a checkout."""

from lstmopt.train import main

if __name__ == "__main__":
    main()
