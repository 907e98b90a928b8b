"""A LightningModule that knows nothing of lstmopt, and a plain Trainer for it."""

import copy

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lstmopt.callbacks.gradient_norm import GradientNorm
from lstmopt.callbacks.gradient_norm_clipping import GradientNormClipping

STEPS_PER_EPOCH = 5


class Foreign(pl.LightningModule):
    """Anybody's module: an LSTM that predicts the mean of its input."""

    by_keyword = False  # how the LSTM is called

    def __init__(self, make_optimizer=None, val_losses=None):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(1, 8, batch_first=True), nn.Linear(8, 1)
        self.make_optimizer = make_optimizer or (lambda p: torch.optim.Adam(p, lr=0.01))
        self.val_losses = val_losses
        self.lrs, self.momenta, self.dtypes, self.grads = [], [], set(), []

    def training_step(self, batch, batch_idx):
        x, y = batch
        out, _ = self.lstm(input=x) if self.by_keyword else self.lstm(x)
        self.dtypes.add(out.dtype)
        group = self.trainer.optimizers[0].param_groups[0]
        self.lrs.append(group["lr"])
        self.momenta.append(group["betas"][0] if "betas" in group else group.get("momentum"))
        return ((self.head(out[:, -1]).float() - y) ** 2).mean()

    def validation_step(self, batch, batch_idx):
        if batch_idx == 0:
            value = self.val_losses[self.current_epoch] if self.val_losses else 1.0
            self.log("val/loss", torch.tensor(value), batch_size=1)

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        self.grads.append([p.grad.clone() for p in self.parameters() if p.grad is not None])

    def configure_optimizers(self):
        return self.make_optimizer(self.parameters())


class ByKeyword(Foreign):
    """Calls its LSTM as `lstm(input=x)`."""

    by_keyword = True


class Manual(Foreign):
    """Steps its optimizer by itself."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


NONFINITE = {
    "nan loss": lambda loss, weight: loss * float("nan"),
    "inf loss": lambda loss, weight: loss + float("inf"),  # its gradient is finite
    "nan gradient": lambda loss, weight: loss + (0 * weight).sqrt(),  # and this loss
    "inf gradient": lambda loss, weight: loss + (weight - weight.detach()).sqrt(),
}


class Planted(Foreign):
    """The loss or the gradient of chosen steps is not finite; what was before each batch is kept."""

    def __init__(self, bad, make_optimizer=None, kind="nan loss", evaluation=1):
        super().__init__(make_optimizer)
        self.bad, self.kind, self.evaluation = bad, kind, evaluation
        self.states, self.evaluations = [], {}

    def training_step(self, batch, batch_idx):
        step, optimizer = self.global_step, self.trainer.optimizers[0]
        weights = [p.detach().clone() for p in self.parameters()]
        self.states.append((step, weights, copy.deepcopy(optimizer.state_dict()["state"])))
        count = self.evaluations[step] = self.evaluations.get(step, 0) + 1
        loss = super().training_step(batch, batch_idx)
        planted = step in self.bad and count == self.evaluation
        return NONFINITE[self.kind](loss, self.lstm.weight_hh_l0[0, 0]) if planted else loss


def same(left, right):
    """Bit for bit."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


def loader():
    x = torch.randn(20, 6, 1, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, x.mean(dim=1)), batch_size=4)


def trainer(folder, *callbacks, epochs=2, **options):
    defaults = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "num_sanity_val_steps": 2,
    }
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_model_summary=False,
        **defaults | options,
    )


def fit(folder, *callbacks, module=None, ckpt_path=None, **options):
    module = module or Foreign()
    run = trainer(folder, *callbacks, **options)
    run.fit(module, loader(), loader(), ckpt_path=ckpt_path)
    return module, run


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


OPTIMIZERS = {
    "sgd": sgd,
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adam foreach": lambda p: torch.optim.Adam(p, lr=0.01, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=4),
}
CASES = [(name, accumulate) for name in OPTIMIZERS for accumulate in (1, 3) if (name, accumulate) != ("lbfgs", 3)]


def guard(name, policy):
    return GradientNorm(policy) if name == "lbfgs" else GradientNormClipping(nonfinite=policy)


def finite(value):
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    return not isinstance(value, torch.Tensor) or bool(value.isfinite().all())


def whole(folder):
    """No number in the checkpoint is NaN or infinite, but for the best values that nothing has reached yet."""
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return finite(saved["state_dict"]) and finite(saved["optimizer_states"]) and finite(saved["callbacks"])
