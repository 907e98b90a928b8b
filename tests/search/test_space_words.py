"""Keys of a space, with dots in them, on the command line."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from lstmopt.conf_dir import conf_dir
from lstmopt.errors import ConfigError
from lstmopt.search.space import chosen

LSTM = ["optimizer.lr", "model.hidden_size", "model.num_layers", "model.dropout", "data.batch_size"]


def space(*words):
    """What `search=random` varies with these words."""
    parsed = OverridesParser.create().parse_overrides(list(words))
    varied = [override for override in parsed if override.is_sweep_override()]
    several = {override.input_line for override in varied}
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        composed = compose("train", [word for word in words if word not in several], return_hydra_config=True)
    return {one.key: one for one in chosen(composed, parsed, varied).dimensions}


@pytest.mark.parametrize("word", ["search.space.model.hidden_size=null", "~search.space.model.hidden_size"])
def test_a_key_is_taken_out(word):
    found = space("search=random", word)
    assert sorted(found) == sorted(key for key in LSTM if key != "model.hidden_size")


@pytest.mark.parametrize(
    "word",
    [
        "search.space.model.hidden_size=[8,12]",
        "search.space={model.hidden_size:[8,12]}",
        "+search.space.model.hidden_size={choices:[8,12]}",
    ],
)
def test_a_key_is_replaced(word):
    found = space("search=random", word)
    assert sorted(found) == sorted(LSTM) and found["model.hidden_size"].values(9) == [8, 12]


def test_a_range_takes_the_place_of_all_that_was_written():
    found = space("search=random", "search.space.optimizer.lr={low:1,high:3}", "search.space.seed=[1,2]")
    assert found["optimizer.lr"].values(3) == [1, 2, 3]  # not in the logarithm any more
    assert found["seed"].values(9) == [1, 2] and len(found) == 6


def test_an_end_of_a_range():
    lr = space("search=random", "search.space.optimizer.lr.high=1e-3")["optimizer.lr"].distribution
    assert (lr.low, lr.high, lr.log) == (1e-4, 1e-3, True)


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["search/space=optimizers", "search.space.optimizer=null"], ["optimizer.lr"]),
        (["search/space=optimizers", "search.space.optimizer=null", "optimizer=sgd"], ["optimizer.lr", "momentum"]),
        (["search.space.model.num_layers=null", "model.num_layers=2"], [k for k in LSTM if k != "model.num_layers"]),
        (["search.space.model.num_layers=null"], [k for k in LSTM if "num_layers" not in k and "dropout" not in k]),
    ],
)
def test_conditions_on_a_key_that_was_taken_out_are_decided_by_the_config(words, keys):
    parsed = OverridesParser.create().parse_overrides(["search=random", *words])
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("train", ["search=random", *words], return_hydra_config=True)
    points = chosen(config, parsed, []).points(2)
    assert {key.removeprefix("optimizer.") for point in points for key in point} == {
        key.removeprefix("optimizer.") for key in keys
    }


def test_what_cannot_be_read_is_told():
    with pytest.raises(ConfigCompositionException, match=r"search\.space\.model\.hiden_size"):
        space("search=random", "search.space.model.hiden_size=null")
    with pytest.raises(ConfigError, match=r"type model\.hidden_size=64 for one value"):
        space("search=random", "search.space.model.hidden_size=64")
    with pytest.raises(ConfigError, match=r"type 'optimizer\.lr=interval\(1e-4,1e-2\)'"):
        space("search=random", "search.space.optimizer.lr=interval(1e-4,1e-2)")
    with pytest.raises(ConfigError, match="nothing to vary"):
        space("search=random", *(f"search.space.{key}=null" for key in LSTM))


def test_programs_of_others_are_left_as_they_are(tmp_path):
    (tmp_path / "train.yaml").write_text("search: {space: {a: {b: 1, c: 2}}}")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert OmegaConf.to_container(compose("train", ["search.space.a.b=3"])) == {
            "search": {"space": {"a": {"b": 3, "c": 2}}}
        }
        with pytest.raises(ConfigCompositionException):
            compose("train", ["search.space.d.e=3"])


def test_a_search_in_a_space_that_was_mended(program):
    """Two trials, each composed anew with what was typed."""
    words = ["search=grid", "search.space.model.hidden_size=[4,5]", "data.batch_size=32", "search.study=s"]
    words += [f"search.space.{key}=null" for key in ("optimizer.lr", "model.num_layers")]
    done = program(*words, "trainer.max_epochs=1", "trainer.limit_train_batches=2", "logger=none")
    assert done.returncode == 0, done.stderr
    folder = program.folder / "multirun" / "s"
    sizes = [OmegaConf.load(path).model.hidden_size for path in folder.glob("[01]/.hydra/config.yaml")]
    assert sorted(sizes) == [4, 5]
    said = program("search=random", "search.space.model.hiden_size=null").stderr
    assert "type search.space.model.hidden_size=null" in said
