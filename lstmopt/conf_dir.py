"""Where the configuration files are: in the wheel or in the checkout."""

from pathlib import Path


def conf_dir() -> str:
    """Absolute folder of the shipped YAML files, in a wheel, an editable install or a checkout.

    Raises:
        FileNotFoundError: the installation holds no configuration files.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(f"no configuration files beside {package}: install lstmopt again")


def shadowed(search_path: list[str]) -> list[str]:
    """The user's own option files that a shipped file of the same name keeps from being read."""
    shipped = Path(conf_dir())
    found = []
    for folder in {Path(path) for path in search_path} - {shipped}:
        for file in sorted(folder.glob("**/*.yaml")):
            name = file.relative_to(folder)
            if (shipped / name).is_file():
                found.append(f"{file} is not read: lstmopt ships {name}\n  rename it, as my_{name.name}")
    return found
