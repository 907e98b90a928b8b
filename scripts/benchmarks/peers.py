"""Training windows per second of other frameworks on the work of `throughput.py`; run in their own environment.

    .venv-peers/bin/python scripts/benchmarks/peers.py --data-root DIR --one neuralforecast

ETTh1, the oil temperature alone, 96 to 24, one LSTM layer of 64 units, 64 windows per step, Adam, one thread; the rest
is as each framework has it by default, but progress bars, checkpoints and loggers are off, which favours them. The
clock runs from the end of the 20th training batch; import, preparation and validation are left out.

- neuralforecast `LSTM`: one series, `windows_batch_size=64`; its decoder keeps its size.
- darts `BlockRNNModel("LSTM")`: `batch_size=64`, float32.
- pytorch-forecasting `RecurrentNetwork`: encoder of 96, decoder of 24, `batch_size=64`.
- Keras on torch: `LSTM(64)` and `Dense(24)`, `fit` on the array of all windows, `batch_size=64`.
"""

import argparse
import os
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pandas as pd
import torch

WARM_UP, INPUT, HORIZON, HIDDEN, BATCH = 20, 96, 24, 64, 64


class Done(Exception):
    """The last step has ended."""


def clock(base, steps):
    """A callback for a Lightning of either name, that ends the training and keeps the speed."""

    class Clock(base):
        count, began, speed = 0, 0.0, 0.0  # of the class, as some frameworks train with a copy

        def on_train_batch_end(self, *_, **__):
            Clock.count += 1
            if Clock.count == WARM_UP:
                Clock.began = time.perf_counter()
            if Clock.count == WARM_UP + steps:
                Clock.speed = steps * BATCH / (time.perf_counter() - Clock.began)
                raise Done

    return Clock()


def frame(root):
    """The oil temperature of the training part, standardised."""
    table = pd.read_csv(Path(root, "ett", "ETTh1.csv"))
    table = table.iloc[: round(len(table) * 0.7)]
    values = (table["OT"] - table["OT"].mean()) / table["OT"].std()
    return pd.DataFrame({"unique_id": "OT", "ds": pd.to_datetime(table["date"]), "y": values.astype("float32")})


def neuralforecast(options):
    import pytorch_lightning as pl
    from neuralforecast import NeuralForecast
    from neuralforecast.models import LSTM

    watch = clock(pl.Callback, options.steps)
    model = LSTM(
        h=HORIZON,
        input_size=INPUT,
        encoder_n_layers=1,
        encoder_hidden_size=HIDDEN,
        windows_batch_size=BATCH,
        max_steps=WARM_UP + options.steps + 1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[watch],
    )
    with suppress(Done):
        NeuralForecast(models=[model], freq="h").fit(frame(options.data_root))
    return watch.speed


def darts(options):
    import numpy as np
    import pytorch_lightning as pl
    from darts import TimeSeries
    from darts.models import BlockRNNModel

    watch = clock(pl.Callback, options.steps)
    model = BlockRNNModel(
        model="LSTM",
        input_chunk_length=INPUT,
        output_chunk_length=HORIZON,
        hidden_dim=HIDDEN,
        n_rnn_layers=1,
        batch_size=BATCH,
        n_epochs=100,
        pl_trainer_kwargs={
            "accelerator": "cpu",
            "callbacks": [watch],
            "enable_progress_bar": False,
            "logger": False,
            "enable_checkpointing": False,
        },
    )
    with suppress(Done):
        model.fit(TimeSeries.from_values(frame(options.data_root)["y"].to_numpy().astype(np.float32)), verbose=False)
    return watch.speed


def pytorch_forecasting(options):
    import lightning.pytorch as pl  # noqa: TID251, the name that this framework takes
    from pytorch_forecasting import RecurrentNetwork, TimeSeriesDataSet

    data = frame(options.data_root)
    data["step"] = range(len(data))
    training = TimeSeriesDataSet(
        data[["unique_id", "step", "y"]],
        time_idx="step",
        target="y",
        group_ids=["unique_id"],
        min_encoder_length=INPUT,
        max_encoder_length=INPUT,
        min_prediction_length=HORIZON,
        max_prediction_length=HORIZON,
        time_varying_unknown_reals=["y"],
    )
    model = RecurrentNetwork.from_dataset(training, cell_type="LSTM", hidden_size=HIDDEN, rnn_layers=1)
    watch = clock(pl.Callback, options.steps)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=100,
        callbacks=[watch],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    with suppress(Done):
        trainer.fit(model, training.to_dataloader(train=True, batch_size=BATCH, num_workers=0))
    return watch.speed


def keras(options):
    os.environ["KERAS_BACKEND"] = "torch"
    import numpy as np
    from keras import Sequential
    from keras.callbacks import Callback
    from keras.layers import LSTM, Dense, Input

    windows = np.lib.stride_tricks.sliding_window_view(frame(options.data_root)["y"].to_numpy(), INPUT + HORIZON)
    model = Sequential([Input((INPUT, 1)), LSTM(HIDDEN), Dense(HORIZON)])
    model.compile(optimizer="adam", loss="mse")
    watch = clock(Callback, options.steps)
    with suppress(Done):
        x, y = windows[:, :INPUT, None], windows[:, INPUT:]
        model.fit(x, y, batch_size=BATCH, epochs=100, verbose=0, callbacks=[watch])
    return watch.speed


PEERS = {
    "neuralforecast": neuralforecast,
    "darts": darts,
    "pytorch-forecasting": pytorch_forecasting,
    "keras": keras,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--one", choices=list(PEERS), required=True)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print(PEERS[options.one](options))


if __name__ == "__main__":
    main()
