"""A slice of scripts/torture.py: runs that are killed end as if they had never been."""

import random
import signal

import killing
import pytest
from random_runs import BASE, BATCHES, SERIES, a_text, some_kills, some_options


def case(name, number, folder):
    rng = random.Random(f"slice {name} {number}")
    return rng, some_options(rng, a_text(folder)), folder / "run"


@pytest.mark.parametrize("number", range(10))
def test_one_kill_at_a_random_moment(number, tmp_path):
    rng, options, folder = case("single", number, tmp_path)
    differing, _, output = killing.random_kill(options, (number + rng.random()) / 10, folder)
    assert not differing, output


@pytest.mark.parametrize("number", range(8))
def test_chains_of_four_kills(number, tmp_path):
    rng, options, folder = case("chain", number, tmp_path)
    differing, struck, output = killing.chain(options, some_kills(rng), folder)
    assert not differing, output
    assert struck >= 2  # early stopping may leave later positions out


@pytest.mark.parametrize("point", killing.WRITES)
def test_a_kill_within_a_write(point, tmp_path):
    rng, options, folder = case("write", point, tmp_path)
    differing, struck, output = killing.killed_writing(options, ("write", 3, point), folder)
    assert struck and not differing, output


@pytest.mark.parametrize("place", ["setup", "training_step", "validation_step", "test_step"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals(signum, place, tmp_path):
    rng, options, folder = case("signal", int(signum), tmp_path)
    differing, struck, output = killing.signalled(options, place, signum, rng, folder)
    assert struck and not differing, output


@pytest.mark.parametrize("end", ["callbacks.early_stopping.stopping_threshold=100", "trainer.max_steps=3"])
def test_a_signal_in_the_test_of_a_run_that_ended_within_an_epoch(end, tmp_path):
    """Going on it has no batch to train, and logs its test at the step where the whole run did."""
    options = [*BASE, *SERIES, "trainer.val_check_interval=0.5", f"trainer.limit_train_batches={BATCHES}", end]
    differing, struck, output = killing.signalled(options, "test_step", signal.SIGTERM, random.Random(1), tmp_path)
    assert struck and not differing, output


@pytest.mark.parametrize("how", ["cut", "empty", "random", *["flip"] * 6])
def test_damage_is_told_and_the_checkpoint_before_is_taken(how, tmp_path, request):
    rng = random.Random(request.node.name)
    differing, _, said = killing.recovered(how, rng, tmp_path / "run")
    assert not differing, said
