"""Forecasting: the next H steps of C series, or any regression on sequences."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

from lstmopt.data.batch import Batch, DataSpec, Split
from lstmopt.errors import ConfigError
from lstmopt.tasks.task import Context, Metrics, Predict, Task, all_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLAT = 1e-4  # a spread, of standardised values, that is none


class Forecasting(Task):
    """Predict all H steps of C targets at once from the last LSTM output, or each target from its own (`patch_lstm`).

    Where inputs are not the targets' past (`adding`, `npz`), `window_norm` and `highway` have no effect.

    Args:
        spec: facts about the data.
        loss: `mse`, `mae` or `huber`, on standardised values.
        window_norm: what is done to each window and undone to its forecast: `last` subtracts its last row (Zeng et
            al. 2023, NLinear); `scale` also divides by its root mean square distance from that row, channel by
            channel (in the manner of Kim et al. 2022, RevIN), unless the window is flat; `none` nothing. Other inputs
            lose their level with it: where the hour or the season is one of them, try `none`.
        highway: add a linear map of each target's past, `[T]` to `[H]`, so that the LSTM learns what is not linear
            (Lai et al. 2018, LSTNet, the autoregressive component).

    Raises:
        ConfigError: a window of one row, which is nothing relative to its last row.
    """

    name = "forecasting"
    primary = "mse"
    per_channel = False

    def __init__(
        self,
        spec: DataSpec,
        loss: Literal["mse", "mae", "huber"] = "mse",
        window_norm: Literal["scale", "last", "none"] = "scale",
        highway: bool = True,
    ) -> None:
        super().__init__(spec)
        self.loss_function: Callable[[Tensor, Tensor], Tensor] = {
            "mse": F.mse_loss,
            "mae": F.l1_loss,
            "huber": F.huber_loss,
        }[loss]  # type: ignore[assignment]
        self.all_columns = spec.target_index == list(range(spec.input_size))
        self.window_norm = window_norm if spec.target_index else "none"
        if self.window_norm != "none" and spec.input_length == 1:
            raise ConfigError(
                f"with task.window_norm={window_norm} a window is taken relative to its last row, and one of "
                "data.input_length=1 is nothing",
                "type task.window_norm=none, or a larger data.input_length",
            )
        self.highway = nn.Linear(spec.input_length, spec.horizon) if highway and spec.target_index else None
        if self.highway is not None:
            nn.init.zeros_(self.highway.weight)
            nn.init.zeros_(self.highway.bias)
        columns = None if self.all_columns else torch.tensor(spec.target_index, dtype=torch.long)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("mean", torch.tensor(spec.mean or [0.0] * spec.output_size), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std or [1.0] * spec.output_size), persistent=False)

    columns: Tensor
    mean: Tensor
    std: Tensor

    def make_head(self, width: int, per_channel: bool = False) -> None:
        """One output per step and target; per channel one per step, with weights that the targets share."""
        if per_channel and not self.spec.target_index:
            super().make_head(width, per_channel)
        self.per_channel = per_channel
        self.head = nn.Linear(width, self.spec.horizon * (1 if per_channel else self.spec.output_size))

    def encode(self, batch: Batch) -> tuple[Tensor, Context]:
        """The normalised window; the context is the targets' past in it, and their level and scale `[B, 1, C]`.

        A model that reads each channel by itself gets the targets' past alone, since nothing else reaches a forecast.
        """
        x = batch.x
        level: Tensor | float = 0.0
        scale: Tensor | float = 1.0
        if self.window_norm != "none":
            last = x[:, -1:]
            x, level = x - last, self._targets(last)
        if self.window_norm == "scale":
            spread = x.square().mean(dim=1, keepdim=True).sqrt_()
            spread = spread.masked_fill(spread < FLAT, 1.0)  # out of a flat window too a forecast can rise
            x, scale = x / spread, self._targets(spread)
        past = self._targets(x)
        return past if self.per_channel else x, (past, level, scale)

    def _targets(self, x: Tensor) -> Tensor:
        """The target columns of `[B, T, F]`; their numbers are on the device, where a list would be copied to."""
        return x if self.all_columns else x.index_select(-1, self.columns)

    def decode(self, hidden: Tensor, context: Context) -> Tensor:
        """The forecast `[B, H, C]`, standardised."""
        past, level, scale = context
        out = self.head(hidden)
        if self.spec.output_size == 1:  # the same in fewer operations
            if self.highway is not None:
                out = out.view(len(past), -1) + self.highway(past.squeeze(2))
            out = out.view(len(out), -1, 1)
        else:
            if self.per_channel:
                out = out.transpose(1, 2)
            else:
                out = out.view(len(hidden), self.spec.horizon, self.spec.output_size)
            if self.highway is not None:
                out = out + self.highway(past.transpose(1, 2)).transpose(1, 2)
        return torch.addcmul(level, out, scale) if isinstance(scale, Tensor) else out * scale + level

    def loss(self, out: Tensor, batch: Batch) -> Tensor:
        """Mean over batch, steps and targets."""
        return self.loss_function(out, batch.y)

    def sample(self, out: Tensor, batch: Batch) -> Tensor:
        """The forecast with the noise under which the squared error is a negative log-likelihood: variance 1/2."""
        return out + torch.randn_like(out) * 0.5**0.5

    def metrics(self) -> dict[str, Metric]:
        """`mse`, `mae` on standardised values; `mse_raw`, `mae_raw` in the data's units."""
        return super().metrics() | {
            "mse": MeanSquaredError(),
            "mae": MeanAbsoluteError(),
            "mse_raw": MeanSquaredError(),
            "mae_raw": MeanAbsoluteError(),
        }

    def update(self, metrics: Metrics, out: Tensor, batch: Batch) -> None:
        """Add one batch."""
        out, y = out.float().contiguous(), batch.y.contiguous()
        metrics["loss"].update(self.loss_function(out, y), weight=len(y))
        for name in ("mse", "mae"):
            metrics[name].update(out, y)
            metrics[f"{name}_raw"].update(self.raw(out), self.raw(y))

    def raw(self, values: Tensor) -> Tensor:
        """Standardised `[..., C]` to the data's units."""
        return values * self.std + self.mean

    def baselines(self, train: Split) -> dict[str, Predict]:
        """The last season repeated, with and without drift; the training mean where inputs are not the targets' past.

        Without a season, or where the input does not hold one (plus a step for drift), it is the last value that is
        repeated: `naive` and `naive_drift`, no `seasonal_naive`.
        """
        if not self.spec.target_index:
            mean = all_samples(train, len(train)).y.mean(dim=0)
            return {"mean": lambda batch: mean.to(batch.y.device).expand_as(batch.y)}

        season, length = self.spec.season, self.spec.input_length
        if season > length:
            warnings.warn(
                f"a season of {season} rows is longer than data.input_length={length}: the baseline repeats the last "
                f"value; type data.input_length={season}",
                stacklevel=2,
            )

        def naive(drift: bool) -> tuple[str, Predict]:
            whole = 1 < season <= length - drift
            name = f"{'seasonal_' if whole else ''}naive{'_drift' if drift else ''}"
            return name, lambda batch: _seasonal_naive(
                batch.x[..., self.spec.target_index], season if whole else 1, self.spec.horizon, drift
            )

        return dict((naive(False), naive(True)))

    def picture(self, predict: Predict, part: Split) -> "Figure":
        """Three windows: what the model saw, its forecast, the truth."""
        from matplotlib.figure import Figure

        chosen = torch.linspace(0, len(part) - 1, 3).long()
        batch = part.batch(chosen)
        forecast, truth = self.raw(predict(batch).float().cpu()), self.raw(batch.y)
        figure = Figure(figsize=(9, 7))
        figure.subplots_adjust(0.12, 0.07, 0.98, 0.95, hspace=0.2)  # a constrained layout takes twice as long
        name = self.spec.target_names[0] if self.spec.target_names else "target"
        for row, axes in enumerate(figure.subplots(3, 1, sharex=True)):
            steps = torch.arange(1, self.spec.horizon + 1)
            marker = "o" if self.spec.horizon == 1 else ""
            if self.spec.target_index:
                past = self.raw(batch.x[row][:, self.spec.target_index])[:, 0]
                axes.plot(torch.arange(-len(past) + 1, 1), past, color="0.6", label="seen")
            axes.plot(steps, truth[row, :, 0], color="tab:blue", marker=marker, label="truth")
            axes.plot(steps, forecast[row, :, 0], color="tab:orange", marker=marker, label="forecast")
            axes.set_ylabel(f"{name} [{self.spec.unit}]" if self.spec.unit else name)
            axes.set_title(f"window {int(chosen[row]) + 1} of {len(part)}", fontsize="small")
            if row == 0:
                axes.legend(loc="upper left", ncols=3, fontsize="small")
        axes.set_xlabel("steps from the forecast's start")
        return figure


def _seasonal_naive(past: Tensor, season: int, horizon: int, drift: bool) -> Tensor:
    """The last season repeated, `[B, T, C]` to `[B, H, C]`; drift adds the last season's change per season.

    Where the season is one step, the drift is the window's mean change per step (Hyndman & Athanasopoulos, Forecasting:
    Principles and Practice, 5.2).
    """
    length = past.shape[1]
    ahead = torch.arange(horizon, device=past.device)
    out = past[:, length - season + ahead % season]
    if drift and length > 1:
        span = season if season > 1 else length - 1
        per_season = (past[:, -1:] - past[:, -1 - span : length - span]) / span * season
        out = out + per_season * (ahead // season + 1)[:, None]
    return out
