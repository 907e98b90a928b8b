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
