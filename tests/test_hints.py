"""What is told to be typed instead, without starting the program."""

import pytest
from hydra import compose, initialize_config_dir

from lstmopt.conf_dir import conf_dir
from lstmopt.mistakes import explain


def told(*words):
    """What is said about a line that cannot be composed."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        try:
            compose("train", list(words))
        except Exception as error:
            caught = error
    return explain(caught, list(words))


# what is typed: what is to be typed instead
INSTEAD = {
    "+lr_scheduler=one_cycle": "type lr_scheduler=one_cycle, without the +",
    "+lr_scheduler=one_cycle optimizer.lr=0.01": "type lr_scheduler=one_cycle, without the +",
    "+optimizer=sgd optimizer.momentum=0.5": "type optimizer=sgd, without the +",
    "+optimizer.lr=0.1": "type optimizer.lr=0.1, without the +",
    "+lr_scheduler=one_cicle": "type lr_scheduler=one_cycle (there are cosine",
    "lr_scheduler=one_cicle": "type lr_scheduler=one_cycle (there are cosine",
    "search=median": "type search/pruner=median",
    "search=optimizers": "type search/space=optimizers",
    "pruner=median": "type search/pruner=median",
}


@pytest.mark.parametrize("typed", INSTEAD)
def test_what_to_type_instead(typed):
    (problem, hint) = told(*typed.split()).splitlines()
    assert hint.strip().startswith(INSTEAD[typed])
    assert problem.startswith(("there is no key ", typed.split()[0].lstrip("+"), typed.split()[0]))


@pytest.mark.parametrize(
    "typed", [*INSTEAD, "~lr_scheduler=one_cycle", "~optimizer.lr=0.5", "~optimizer=adam", "lr_scheduler@x.y=one_cycle"]
)
def test_never_what_was_typed(typed):
    said = told(*typed.split())
    assert "\n  " in said
    assert not {f"type {word}" for word in typed.split()} & {
        line.strip().partition(" (")[0] for line in said.splitlines()
    }
