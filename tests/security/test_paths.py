"""Names that would lead out of the folder that they belong in."""

import pytest

NAMES = ["../x", "..", "a/../../x", "/etc/x", "a/b", "x\\y", "~/x\0", "..\0", "a\nb", "x/"]
KEYS = ["data=polymusic data.name", "data=ucr data.name", "logger=csv logger.csv.name", "logger=csv logger.csv.version"]


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_a_name_is_no_path(number, program):
    *option, key = KEYS[number % len(KEYS)].split()
    text = NAMES[number].replace("\\", "\\\\").replace("\0", "\\0").replace("\n", "\\n")
    group, name = key.rsplit(".", 1)
    (program.folder / "my" / "experiment").mkdir(parents=True)
    body = "".join(f"{'  ' * depth}{word}:\n" for depth, word in enumerate(group.split(".")))
    body += f'{"  " * len(group.split("."))}{name}: "{text}"\n'
    (program.folder / "my" / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{body}")
    before = sorted(program.folder.parent.rglob("*"))
    done = program("--config-dir", "my", *option, "experiment=mine", "trainer=debug", "hydra.run.dir=run")
    assert done.returncode == 2 and "is not the name of a file" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 5
    assert sorted(program.folder.parent.rglob("*")) == before


def test_plain_names_are_names(program):
    done = program("logger=csv", "logger.csv.name=my run-1.2", "trainer=debug", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
