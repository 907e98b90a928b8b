"""Every option file that there is: it composes, lists its target's full signature, and is explained."""

import inspect
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from lstmopt import check
from lstmopt.conf_dir import conf_dir

ROOT = Path(__file__).parents[2]
CONF = Path(conf_dir())
FILES = sorted(CONF.glob("**/*.yaml"))
# arguments that are given at run time or are another option's to set
AT_RUN_TIME = {
    "torch.optim": {"params"},
    "pytorch_optimizer": {"params"},
    "lstmopt.models": {"input_size"},
    "lstmopt.optim": {"params"},
    "lstmopt.data.datamodule": {"split", "batch_size", "shuffle", "seed"},
    "lstmopt.tasks": {"spec"},
    # the search's seed; callables; arguments that Optuna gave up
    "lstmopt.search": {"seed"},
    "lstmopt.compare": {"seed"},
    "optuna.samplers": {
        *("seed", "constraints_func", "gamma", "weights", "source_trials", "restart_strategy", "inc_popsize"),
        *("warn_independent_sampling", "consider_prior", "prior_weight", "consider_magic_clip", "consider_endpoints"),
        *("elite_population_selection_strategy", "child_generation_strategy", "after_trial_strategy"),
    },
    "pytorch_lightning.Trainer": {
        "precision",
        "logger",
        "callbacks",
        "enable_checkpointing",
        "enable_progress_bar",
        "enable_autolog_hparams",
        "gradient_clip_val",
        "gradient_clip_algorithm",
        "profiler",
        "plugins",
        "default_root_dir",
        "model_registry",
    },
}


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def nodes(cfg):
    """Every node with a target, at any depth."""
    if isinstance(cfg, dict):
        if "_target_" in cfg:
            yield cfg
        for value in cfg.values():
            yield from nodes(value)


def test_all_groups_are_found():
    assert len(FILES) >= 55
    groups = {file.parent for file in FILES if file.parent != CONF}
    assert len(groups) >= 16
    assert all(len(file.relative_to(CONF).parts) <= 3 for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF)))
def test_option(file):
    text = file.read_text()
    assert any(line.startswith("# ") and "@package" not in line for line in text.splitlines()[:2]), "no comment on top"
    if file.parent == CONF:
        cfg = composed()
    else:
        group, option = str(file.parent.relative_to(CONF)), file.stem
        cfg = composed(f"{group}=[{option}]" if group == "callbacks" else f"{group}={option}")
    for node in nodes(OmegaConf.to_container(cfg, resolve=False)):
        target = node["_target_"]
        if target.startswith("hydra"):
            continue
        parameters = inspect.signature(get_object(target)).parameters
        given = {key for prefix, keys in AT_RUN_TIME.items() if target.startswith(prefix) for key in keys}
        known = {name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD} - given
        assert {key for key in node if not key.startswith("_")} == known, target
    found = [problem for problem in check.problems(cfg) if "is not set" not in problem]
    assert not found


def test_what_is_instantiated_holds_plain_lists():
    optimizer = instantiate(composed("optimizer=adam").optimizer, _convert_="all")
    assert type(optimizer.keywords["betas"]) is list


def test_a_schedule_brings_adam_along_where_no_optimizer_is_named():
    schedules = {file.stem for file in (CONF / "lr_scheduler").glob("*.yaml")} - {"none"}
    assert len(schedules) >= 9 and composed().optimizer._target_ == "pytorch_optimizer.ScheduleFreeAdamW"
    for name in schedules:
        plain, named = composed(f"lr_scheduler={name}"), composed(f"lr_scheduler={name}", "optimizer=rmsprop")
        assert plain.optimizer._target_ == "torch.optim.Adam" and "schedule_free" not in plain.callbacks
        assert named.optimizer._target_ == "torch.optim.RMSprop"


def test_every_key_of_an_option_has_its_type_checked():
    """A word where a number belongs is found in every option, whatever its target."""
    checked = 0
    for file in sorted((CONF / "optimizer").glob("*.yaml")):
        cfg = composed(f"optimizer={file.stem}")
        for key in [key for key, value in cfg.optimizer.items() if type(value) in (int, float)]:
            wrong = OmegaConf.merge(cfg, {"optimizer": {key: "word"}})
            assert any(f"optimizer.{key}=word" in problem for problem in check.problems(wrong)), (file.stem, key)
            checked += 1
    assert checked >= 15


def test_adding_an_optimizer_is_one_file(program):
    (program.folder / "my" / "optimizer").mkdir(parents=True)
    (program.folder / "my" / "optimizer" / "adamax.yaml").write_text(
        "# torch's Adamax\n_target_: torch.optim.Adamax\n_partial_: true\nlr: 0.002\nbetas: [0.9, 0.999]\neps: 1.0e-8\n"
        "weight_decay: 0.0\nforeach: null\nmaximize: false\ndifferentiable: false\ncapturable: false\n"
    )
    typed = ["--config-dir", "my", "optimizer=adamax", "optimizer.lr=0.02", "trainer=debug"]
    done = program(*typed)
    assert done.returncode == 2 and "type 'plugins.allow=[torch.optim.Adamax]'" in done.stderr
    done = program(*typed, "plugins.allow=[torch.optim.Adamax]")
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_the_same_option_files(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name.removeprefix("lstmopt/conf/") for name in names if name.endswith(".yaml")}
    assert shipped == {str(file.relative_to(CONF)) for file in FILES}
    assert "lstmopt/data/co2.csv" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"lstmopt", "hydra_plugins"}


def test_style():
    """What reviewers would otherwise have to look for."""
    sources = sorted((ROOT / "lstmopt").glob("**/*.py"))
    tests = sorted([*(ROOT / "tests").glob("**/*.py"), *(ROOT / "scripts").glob("**/*.py")])
    assert len(sources) >= 40
    instantiating = []
    for file in sources:
        text = file.read_text()
        if re.search(r"import instantiate|hydra\.utils\.instantiate\(", text):
            instantiating.append(file.name)
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, file
        assert "weights_only=False" not in text, file
        assert not re.search(r"^\s*(import|from) lightning\b", text, re.M), file
        assert "utils" not in file.relative_to(ROOT).parts and file.name != "utils.py"
    assert instantiating == ["build.py"]
    for file in [*sources, *tests]:
        assert len(file.read_text().splitlines()) <= 300, f"{file} is too long"
