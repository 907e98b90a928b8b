"""The plateau schedule as Keras counts it."""

from typing import Literal

from lstmopt.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau


class KerasReduceLROnPlateau(ReduceLROnPlateau):
    """`keras.callbacks.ReduceLROnPlateau`: the same rates at the same epochs.

    Against torch it reduces one epoch earlier for the same `patience`, and its `cooldown` is one epoch shorter,
    because the epoch in which the cooldown ends counts already; `min_delta` is absolute.

    Args:
        monitor: the metric, as `val/loss`.
        mode: `min` or `max`.
        factor: of the learning rate.
        patience: epochs without an improvement; the last of them reduces.
        min_delta: an improvement is larger than this.
        cooldown: epochs after a reduction, the last of which counts again.
        min_lr: lowest rate.

    Reference: Keras 3, keras.callbacks.ReduceLROnPlateau.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(
            monitor,
            mode,
            factor=factor,
            patience=max(patience - 1, 0),
            threshold=min_delta,
            threshold_mode="abs",
            cooldown=max(cooldown - 1, 0),
            min_lr=min_lr,
            eps=0.0,
        )
