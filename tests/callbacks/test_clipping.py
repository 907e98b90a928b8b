"""What clipping options leave of the gradients, and steps that are left out."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from foreign import Foreign, Planted, fit, same, sgd
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.strategies import FSDPStrategy

from lstmopt.callbacks.adaptive_gradient_clipping import AdaptiveGradientClipping
from lstmopt.callbacks.amp import AMP
from lstmopt.callbacks.gradient_norm import MOST_IN_A_ROW, GradientNorm
from lstmopt.callbacks.gradient_norm_clipping import GradientNormClipping
from lstmopt.callbacks.gradient_value_clipping import GradientValueClipping
from lstmopt.callbacks.per_weight_norm_clipping import PerWeightNormClipping
from lstmopt.errors import ConfigError

ALL = [GradientNorm, GradientNormClipping, GradientValueClipping, PerWeightNormClipping, AdaptiveGradientClipping]


def first_gradients(tmp_path, *callbacks):
    """Gradients of the first step, and the weights that they belong to."""
    module, _ = fit(tmp_path, *callbacks, module=Foreign(sgd), epochs=1)
    return module.grads[0], [p.detach().clone() for p in Foreign(sgd).parameters()]


def test_per_weight_norm_by_hand(tmp_path):
    free, _ = first_gradients(tmp_path)
    limit = sorted(g.norm().item() for g in free)[2]  # some tensors are above, some below
    clipped, _ = first_gradients(tmp_path, PerWeightNormClipping(limit))
    for plain, ours in zip(free, clipped, strict=True):
        torch.testing.assert_close(ours, plain * min(1.0, limit / plain.norm().item()))
    assert any(not torch.equal(a, b) for a, b in zip(free, clipped, strict=True))


def test_adaptive_by_hand(tmp_path):
    free, weights = first_gradients(tmp_path)
    clipped, _ = first_gradients(tmp_path, AdaptiveGradientClipping(0.02, eps=0.01))
    changed = 0
    for plain, weight, ours in zip(free, weights, clipped, strict=True):
        rows = zip(plain, weight, ours, strict=True) if plain.ndim == 2 else [(plain, weight, ours)]
        for gradient, row, found in rows:
            limit = 0.02 * max(row.norm().item(), 0.01)
            expected = gradient * min(1.0, limit / gradient.norm().item()) if gradient.norm() > 0 else gradient
            torch.testing.assert_close(found, expected)
            changed += gradient.norm().item() > limit
    assert changed


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_without_a_finite_gradient_changes_nothing(cls, accumulate, precision, tmp_path):
    callback = cls(nonfinite="skip")
    extra = [AMP(precision)] if precision != "32-true" else []
    module = Planted({3})
    _, run = fit(
        tmp_path, callback, *extra, module=module, accumulate_grad_batches=accumulate, logger=CSVLogger(tmp_path)
    )
    steps = {step: (weights, state) for step, weights, state in module.states}
    assert callback.skipped == 1 and callback.state_dict()["skipped"] == 1
    before, after = steps[3], steps[4]
    assert same(list(before), list(after)), "weights or the optimizer's state moved"
    assert not same(steps[2][0], steps[3][0]) and not same(steps[4][0], steps[5][0])
    assert all(p.isfinite().all() for p in module.parameters())
    run.loggers[0].save()
    assert "grad_norm/skipped_steps" in (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()


def fused_adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01, fused=True)


def on_a_gpu(cls):
    """A callback that takes the CPU for a device whose numbers are not at hand."""
    return type(cls.__name__, (cls,), {"host": "none"})(nonfinite="skip")


@pytest.mark.parametrize("cls", ALL)
def test_a_fused_adam_leaves_the_step_out_by_itself(cls, tmp_path, monkeypatch):
    """The same weights, and the same count, as where the host looks at every norm."""
    there, here = on_a_gpu(cls), cls(nonfinite="skip")
    modules = [Planted({3, 4}, fused_adam) for _ in "ab"]
    fit(tmp_path / "a", here, module=modules[0])
    monkeypatch.setattr("lstmopt.callbacks.gradient_norm.math.isfinite", None)  # nobody looks
    fit(tmp_path / "b", there, module=modules[1])
    assert here.skipped == there.skipped == there.state_dict()["skipped"] == 2
    for (step, weights, state), (other, theirs, their_state) in zip(*(m.states for m in modules), strict=True):
        assert step == other and same(weights, theirs), step
        assert step == 0 or all(same(state[k]["exp_avg"], their_state[k]["exp_avg"]) for k in state)


def test_a_run_whose_every_step_is_left_out_on_the_device_ends(tmp_path):
    module = Planted(set(range(3, 200)), fused_adam)
    with pytest.raises(ConfigError, match=r"of \d+ steps in a row"):
        fit(tmp_path, on_a_gpu(GradientNormClipping), module=module, epochs=20)
    assert all(p.isfinite().all() for p in module.parameters())


def test_a_run_whose_every_step_is_left_out_ends(tmp_path):
    module = Planted(set(range(3, 100)))
    with pytest.raises(ConfigError, match=f"{MOST_IN_A_ROW} steps in a row") as caught:
        fit(tmp_path, GradientNormClipping(nonfinite="skip"), module=module, epochs=20)
    assert "optimizer.lr" in caught.value.hint
    assert all(p.isfinite().all() for p in module.parameters())


def test_the_count_goes_on_after_a_resume(tmp_path):
    _, run = fit(tmp_path, GradientNorm("skip"), module=Planted({3}))
    run.save_checkpoint(tmp_path / "saved.ckpt")
    callback = GradientNorm("skip")
    fit(tmp_path, callback, module=Planted({12}), epochs=3, ckpt_path=tmp_path / "saved.ckpt")
    assert callback.skipped == 2


def lbfgs(parameters):
    return torch.optim.LBFGS(parameters, lr=0.5, max_iter=4)


@pytest.mark.parametrize("cls", ALL[1:])
def test_clipping_is_refused_where_the_loss_is_compared_with_its_gradient(cls, tmp_path):
    with pytest.raises(ConfigError, match="LBFGS"):
        fit(tmp_path, cls(), module=Foreign(lbfgs))


@pytest.mark.parametrize("norm_type", [1.0, float("inf"), 2.0])
def test_norms_over_shards_are_refused_but_for_euclids(norm_type):
    """A process has its own shards alone, of which only the sum of squares is added up."""
    run = SimpleNamespace(strategy=FSDPStrategy(), gradient_clip_val=None, optimizers=[])
    callback = GradientNormClipping(norm_type=norm_type)
    if norm_type == 2.0:
        return callback.on_fit_start(run, Foreign())
    with pytest.raises(ConfigError, match="fsdp") as caught:
        callback.on_fit_start(run, Foreign())
    assert caught.value.hint == "type norm_type=2.0"


class Evaluations(pl.Callback):
    """The gradient norm at every evaluation of the closure."""

    def __init__(self):
        self.norms = {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        norm = torch.stack([p.grad.norm() for p in pl_module.parameters()]).norm()
        self.norms.setdefault(trainer.global_step, []).append(norm.item())


def test_norms_of_a_closure_optimizer_are_those_at_the_start_of_each_step(tmp_path):
    class Norms(CSVLogger):
        def log_metrics(self, metrics, step=None):
            if "grad_norm/before" in metrics:
                logged.append((step, metrics["grad_norm/before"]))

    logged, seen = [], Evaluations()
    fit(tmp_path, GradientNorm(), seen, module=Foreign(lbfgs), logger=Norms(tmp_path), log_every_n_steps=1)
    assert max(map(len, seen.norms.values())) > 1
    assert [step for step, _ in logged] == sorted(seen.norms)
    assert [norm for _, norm in logged] == pytest.approx([norms[0] for norms in seen.norms.values()], rel=1e-5)


def test_a_closure_optimizer_ends_a_step_where_the_loss_is_not_finite(tmp_path):
    class Beyond(Foreign):
        evaluations: dict = {}

        def training_step(self, batch, batch_idx):
            count = self.evaluations[self.global_step] = self.evaluations.get(self.global_step, 0) + 1
            loss = super().training_step(batch, batch_idx)
            return loss * float("inf") if count == 2 and self.global_step < 3 else loss

    callback, module = GradientNorm("skip"), Beyond(lbfgs)
    fit(tmp_path, callback, module=module)
    assert [module.evaluations[step] for step in range(3)] == [2, 2, 2], "the step went on"
    assert callback.skipped == 3 and max(module.evaluations.values()) > 2
    assert all(p.isfinite().all() for p in module.parameters())
