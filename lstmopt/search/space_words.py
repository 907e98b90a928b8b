"""Keys of a space on the command line. Hydra's plug-in imports it at every start: nothing heavy here."""

from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict

SPACE = "search.space"
WORDS = {"low", "high", "log", "step", "choices", "when"}
_OURS = "lstmopt.comparison.Comparison"  # a callback that this program alone has


def take_over() -> None:
    """Have Hydra read what stands behind `search.space.` as one key, dots and all, and put its value in the place of
    the one before: `model.hidden_size` is no `hidden_size` in a `model`. Programs of others are left as they are."""
    apply = ConfigLoaderImpl._apply_overrides_to_config

    def applied(overrides: list[Override], cfg: DictConfig) -> None:
        for override in overrides:
            found = _found(override, cfg)
            for key, value in found.items():
                _put(override, cfg.search.space, key, value)
            if not found:
                apply([override], cfg)

    ConfigLoaderImpl._apply_overrides_to_config = staticmethod(applied)  # type: ignore[method-assign]


def _found(override: Override, cfg: DictConfig) -> dict[str, Any]:
    """Keys of the space, and what is typed for them."""
    target = OmegaConf.select(cfg, "hydra.callbacks.comparison._target_")
    if target != _OURS or override.package is not None or not isinstance(cfg.search.get("space"), DictConfig):
        return {}
    name, value = override.key_or_group, override.value()
    if name == SPACE:
        return {str(key): one for key, one in value.items()} if isinstance(value, dict) else {}
    return {name.removeprefix(f"{SPACE}."): value} if name.startswith(f"{SPACE}.") else {}


def _put(override: Override, space: DictConfig, key: str, value: Any) -> None:
    """A key, or `low` and the like of one; null takes it out.

    Raises:
        ConfigCompositionException: there is nothing to take out.
    """
    parent, _, word = key.rpartition(".")
    with open_dict(space):
        if key not in space and word in WORDS and isinstance(space.get(parent), DictConfig):
            space[parent][word] = value
        elif value is None and key not in space:
            raise ConfigCompositionException(f"Could not override '{SPACE}.{key}'")
        else:
            space[key] = value
