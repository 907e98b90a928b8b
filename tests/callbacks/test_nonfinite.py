"""NaN and infinity in loss and gradient: what each policy leaves of weights, optimizer state and files."""

import pytest
import torch
from foreign import (
    CASES,
    NONFINITE,
    OPTIMIZERS,
    STEPS_PER_EPOCH,
    Foreign,
    Planted,
    finite,
    fit,
    guard,
    loader,
    same,
    trainer,
    whole,
)

from lstmopt.callbacks.gradient_norm import GradientNorm
from lstmopt.callbacks.last_checkpoint import LastCheckpoint
from lstmopt.callbacks.tbptt import TBPTT
from lstmopt.errors import ConfigError


def first_of(module, step):
    """Weights and optimizer state before a step."""
    return next([weights, state] for one, weights, state in module.states if one == step)


@pytest.mark.parametrize("kind", NONFINITE)
@pytest.mark.parametrize(("name", "accumulate"), CASES)
def test_stop_leaves_what_was_before_the_step(name, accumulate, kind, tmp_path):
    bad = STEPS_PER_EPOCH + 1 if accumulate == 1 else 3  # in the second epoch
    module = Planted({bad}, OPTIMIZERS[name], kind)
    run = trainer(
        tmp_path, guard(name, "stop"), LastCheckpoint(), accumulate_grad_batches=accumulate, enable_checkpointing=True
    )
    with pytest.raises(ConfigError) as caught:
        run.fit(module, loader(), loader())
    assert same([list(module.parameters()), run.optimizers[0].state_dict()["state"]], first_of(module, bad))
    assert finite(list(module.parameters())) and finite(run.optimizers[0].state_dict()) and whole(tmp_path)
    batch = 2 if accumulate == 1 else 5
    lr = {"sgd": 0.1, "lbfgs": 0.5}.get(name, 0.01)
    assert f"step {bad} (epoch 2, batch {batch}): the loss is " in caught.value.problem
    assert f"at learning rate {lr}" in caught.value.problem and "no weight was changed" in caught.value.problem
    for words in ("optimizer.lr", "nonfinite=skip", "rollback", "precision=fp32", "NaN in the data"):
        assert words in caught.value.hint
    assert len(str(caught.value).splitlines()) <= 5
    if "loss" in kind:
        assert f"the loss is {kind[:3]} " in caught.value.problem
    else:
        assert f"the gradient norm {kind[:3]}," in caught.value.problem


@pytest.mark.parametrize("kind", NONFINITE)
@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_stop_within_a_step_of_lbfgs_undoes_the_step(line_search, kind, tmp_path):
    def make(parameters):
        return torch.optim.LBFGS(parameters, lr=0.5, max_iter=6, history_size=3, line_search_fn=line_search)

    module = Planted({4}, make, kind, evaluation=3)
    run = trainer(tmp_path, GradientNorm())
    with pytest.raises(ConfigError, match="step 4"):
        run.fit(module, loader(), loader())
    assert module.evaluations[4] == 3
    assert same([list(module.parameters()), run.optimizers[0].state_dict()["state"]], first_of(module, 4))


@pytest.mark.parametrize("kind", NONFINITE)
@pytest.mark.parametrize(("name", "accumulate"), CASES)
def test_skip_changes_nothing_and_goes_on(name, accumulate, kind, tmp_path):
    module, callback = Planted({1}, OPTIMIZERS[name], kind), guard(name, "skip")
    options = {"accumulate_grad_batches": accumulate, "enable_checkpointing": True}
    _, run = fit(tmp_path, callback, LastCheckpoint(), module=module, **options)
    assert callback.skipped == 1 and module.global_step == (4 if accumulate == 3 else 10)
    before, after = first_of(module, 1), first_of(module, 2)
    assert same(before, after)
    assert not same(after[0], list(module.parameters()))
    assert finite(list(module.parameters())) and finite(run.optimizers[0].state_dict()) and whole(tmp_path)


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_carried_state_with_nan_is_forgotten(policy, tmp_path):
    class Carried(Foreign):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return super().training_step((x * float("nan") if self.global_step == 2 else x, y), batch_idx)

    module, callback, tbptt = Carried(), GradientNorm(policy), TBPTT()
    fit(tmp_path, callback, tbptt, module=module)
    assert (callback.skipped, callback.rollbacks) == ((1, 0) if policy == "skip" else (0, 1))
    assert finite(tbptt.state_dict()) and finite(list(module.parameters()))


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match="nonfinite=ignore"):
        GradientNorm("ignore")
