"""Every number in the option files has a range, or a reason why it has none."""

from typing import Any

import pytest
from contract.test_yaml import CONF, FILES, composed
from omegaconf import OmegaConf

from lstmopt import check, targets
from lstmopt.ranges import CHOICES, OF_SHIPPED, PAIRS, RANGES

# points of a search's space: what they are tried for has a range of its own, in each trial
SPACE = ("low", "high", "step", "model.num_layers", "data.batch_size")


def is_number(value):
    return type(value) in (int, float) or (isinstance(value, list) and bool(value) and all(map(is_number, value)))


def leaves(node, path=(), target=None):
    """(path, class, value) of whatever is no mapping."""
    if isinstance(node, dict):
        target = node.get("_target_")
        for key, value in node.items():
            yield from leaves(value, (*path, str(key)), target)
    else:
        yield path, target, node


def test_every_number_of_every_file_has_a_range():
    numbers, without = 0, []
    for file in FILES:
        for path, target, value in leaves(OmegaConf.to_container(OmegaConf.load(file), resolve=False)):
            if not is_number(value):
                continue
            numbers += 1
            of_space = file.parent.name == "space" and any(path[-1] == name for name in SPACE)
            if not of_space and not any(check.limits(path[-1], target)):
                without.append(f"{file.relative_to(CONF)}: {'.'.join(path)}")
    assert numbers >= 420 and without == []


def test_every_argument_that_may_be_a_number_has_a_range():
    """Also those that are null, a word or a reference in the files."""
    known = set()
    for file in FILES:
        for path, target, value in leaves(OmegaConf.to_container(OmegaConf.load(file), resolve=False)):
            if target in targets.shipped() and not path[-1].startswith("_"):
                hint = check._hints(target)[0].get(path[-1], Any)
                if is_number(value) or (hint is not Any and (check.fits(1, hint) or check.fits(1.0, hint))):
                    known.add((target, path[-1]))
    assert len(known) >= 330
    without = {key for target, key in known if not any(check.limits(key, target))}
    assert without == {"max_time"}  # a length of time, in words


def test_every_limit_is_of_something():
    """None is left over from a key that was renamed."""
    keys = {path[-1] for file in FILES for path, _, _ in leaves(OmegaConf.to_container(OmegaConf.load(file)))}
    names = {target.rsplit(".", 1)[-1] for target in targets.shipped()}
    for key in [*OF_SHIPPED, *CHOICES, *PAIRS]:
        of, _, name = key.rpartition(".")
        assert name in keys and (not of or of in names), key


@pytest.mark.parametrize("interval", sorted({*RANGES.values(), *OF_SHIPPED.values()}))
def test_an_interval_takes_what_it_shows_and_no_nan(interval):
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    assert low < high and not check._inside(float("nan"), interval)
    assert check._inside(low, interval) == (interval[0] == "[")
    assert check._inside(high, interval) == (interval[-1] == "]")


# at the border of what torch, Lightning and Optuna take
FINE = [
    "optimizer=adam optimizer.eps=0 optimizer.weight_decay=0 optimizer.betas=[0,0]",
    "optimizer=sgd optimizer.momentum=0 optimizer.nesterov=false optimizer.dampening=1",
    "optimizer=adagrad optimizer.lr_decay=0 optimizer.initial_accumulator_value=0",
    "optimizer=lbfgs optimizer.line_search_fn=null optimizer.max_eval=null optimizer.tolerance_grad=0",
    "optimizer=prodigy optimizer.growth_rate=inf optimizer.beta3=1",
    "optimizer=asgd optimizer.t0=0 optimizer.lambd=0",
    "optimizer=schedule_free optimizer.r=-0.5 optimizer.weight_lr_power=0",
    "callbacks.gradient_clip.norm_type=inf",
    "trainer.max_steps=-1 trainer.min_epochs=null trainer.devices=-1 trainer.num_sanity_val_steps=-1",
    "trainer.limit_train_batches=0.5 trainer.devices=[0]",
    "lr_scheduler=reduce_on_plateau callbacks.lr_schedule.threshold=0 callbacks.lr_schedule.cooldown=0",
    "lr_scheduler=one_cycle callbacks.lr_schedule.div_factor=1 callbacks.lr_schedule.final_div_factor=0.5",
    "callbacks.early_stopping.stopping_threshold=-3 callbacks.early_stopping.divergence_threshold=inf",
    "loader.part_of_memory=0",
    "seed=4294967295",
    "model.forget_bias=-1",
    "search=cmaes search.sampler.n_startup_trials=0 search.sampler.sigma0=0.1",
    "data=mnist_rows data.features=56",
]


@pytest.mark.parametrize("typed", FINE)
def test_what_is_fine_is_not_refused(typed):
    assert check.problems(composed(*typed.split())) == []


def test_a_class_of_a_users_own_has_ranges_of_its_own():
    cfg = composed("optimizer=adam")
    own = OmegaConf.merge(cfg, {"optimizer": {"_target_": "pytorch_optimizer.Adan", "betas": [0.98, 0.92, 0.99]}})
    assert not [problem for problem in check.problems(own) if "optimizer.betas" in problem]
