"""Schedule-free training against a loop written by hand after the paper (Defazio et al. 2024, AdamW variant)."""

import pytorch_optimizer
import torch
from foreign import Foreign, fit, loader

from lstmopt.callbacks.schedule_free import ScheduleFree

LR, BETA1, BETA2, EPS = 0.01, 0.9, 0.999, 1e-8


def make(parameters):
    return pytorch_optimizer.ScheduleFreeAdamW(parameters, lr=LR, betas=(BETA1, BETA2), eps=EPS)


class Watching(Foreign):
    """Keeps its weights at every validation and at every training step."""

    def __init__(self):
        super().__init__(make)
        self.validated, self.trained = [], []

    def training_step(self, batch, batch_idx):
        self.trained.append([p.detach().clone() for p in self.parameters()])
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        if batch_idx == 0 and not self.trainer.sanity_checking:
            self.validated.append([p.detach().clone() for p in self.parameters()])
        super().validation_step(batch, batch_idx)


def by_hand(epochs):
    """z: the fast weights; x: their average; gradients are taken at y = (1 - beta1) z + beta1 x."""
    module = Foreign()
    z = [p.detach().clone() for p in module.parameters()]
    x = [p.clone() for p in z]
    v = [torch.zeros_like(p) for p in z]
    averages, points, k = [], [], 0
    for _ in range(epochs):
        for data, target in loader():
            k += 1
            y = [((1 - BETA1) * zi + BETA1 * xi).requires_grad_() for zi, xi in zip(z, x, strict=True)]
            points.append([yi.detach() for yi in y])
            names = [name for name, _ in module.named_parameters()]
            weights = dict(zip(names, y, strict=True))

            class Model(torch.nn.Module):
                def __init__(self, inner):
                    super().__init__()
                    self.inner = inner

                def forward(self, data):
                    out, _ = self.inner.lstm(data)
                    return self.inner.head(out[:, -1])

            out = torch.func.functional_call(Model(module), {f"inner.{n}": w for n, w in weights.items()}, (data,))
            grads = torch.autograd.grad(((out - target) ** 2).mean(), y)
            for i, g in enumerate(grads):
                v[i] = BETA2 * v[i] + (1 - BETA2) * g**2
                z[i] = z[i] - LR * g / ((v[i] / (1 - BETA2**k)).sqrt() + EPS)
                x[i] = x[i] + (z[i] - x[i]) / k
        averages.append([xi.clone() for xi in x])
    return averages, points


def test_average_is_evaluated_and_gradients_are_taken_between(tmp_path):
    module = Watching()
    fit(tmp_path, ScheduleFree(), module=module, epochs=3)
    averages, points = by_hand(3)
    assert len(module.validated) == 3 and len(module.trained) == 15
    for ours, theirs in zip(module.validated, averages, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(module.trained, points, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_weights_that_are_saved_are_the_average_also_without_validation(tmp_path):
    module = Watching()
    fit(tmp_path, ScheduleFree(), module=module, epochs=2, limit_val_batches=0)
    torch.testing.assert_close([p.detach() for p in module.parameters()], by_hand(2)[0][-1], rtol=1e-4, atol=1e-6)


def test_other_optimizers_are_left_alone(tmp_path):
    plain, _ = fit(tmp_path, module=Foreign())
    beside, _ = fit(tmp_path, ScheduleFree(), module=Foreign())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), beside.parameters(), strict=True))
