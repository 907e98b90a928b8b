"""lstmopt: train LSTMs well, every technique one word on the command line."""

__version__ = "0.1.0"
