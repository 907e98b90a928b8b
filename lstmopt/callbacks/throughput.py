import pytorch_lightning as pl
class Throughput(pl.Callback):
    samples_per_second = 0.0
    seconds_to_first_step = 0.0
