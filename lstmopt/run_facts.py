"""What a run is made of, kept in its checkpoints, so that it goes on as what it was."""

import hashlib
import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.optim import Optimizer

from lstmopt.callbacks.best_checkpoint import NAME, BestCheckpoint, must_know
from lstmopt.checkpoint_file import FORMAT, damage, read
from lstmopt.data.batch import Split
from lstmopt.distributed import ranks
from lstmopt.errors import CheckpointError
from lstmopt.results import versions
from lstmopt.rollback import RATES, scale_rates

WHOLE = ("seed", "monitor", "mode", "data", "task", "model", "optimizer")
NEWER = ("input_noise", "mixup")  # in checkpoints since format 2
SLOTS = ("lr_schedule", "gradient_clip", "precision", "memory", *NEWER)  # callbacks that change the training
TRAINER = (
    "accumulate_grad_batches",
    "limit_train_batches",
    "limit_val_batches",
    "overfit_batches",
    "val_check_interval",
    "check_val_every_n_epoch",
)
ELSEWHERE = ("data.path", "data.root")  # the same data may lie in another place
FIXED = ("optimizer._target_", "callbacks.lr_schedule", "data._target_", "task._target_", "model._target_")
DECAY = "optimizer.weight_decay"
SAMPLE = 2**28  # bytes of an array that are looked at


class RunFacts(pl.Callback):
    """Put into every checkpoint what the run is made of; on a resume, say which versions differ, and bring in what may.

    Optimizer settings stand in a checkpoint, so that those typed anew have no effect by themselves. Here the allowed
    ones are put in place after the state was restored; a new learning rate keeps its schedule: all rates are multiplied
    by new / old.

    Args:
        config: settings by dotted key, from `settings`.
        data: digest of the data, from `digest`.
        changed: allowed settings that differ, (old, new) by dotted key.
        metrics: logged so far, of the checkpoint that the run goes on from.
        seconds: of training until that checkpoint.
    """

    def __init__(
        self,
        config: dict[str, Any],
        data: str,
        changed: dict[str, tuple[Any, Any]],
        metrics: dict[str, float],
        seconds: float = 0.0,
    ) -> None:
        self.config, self.data, self.changed, self._metrics = config, data, changed, metrics
        self._seconds, self._began = seconds, math.nan
        self.first_step = math.inf  # of this process

    @property
    def seconds(self) -> float:
        """Of training so far, those of earlier processes included."""
        return self._seconds + (0.0 if math.isnan(self._began) else time.monotonic() - self._began)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the clock."""
        if stage == "fit":
            self._began = time.monotonic()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make sure that a new run does not put its `best.ckpt` in the place of another run's.

        Raises:
            CheckpointError: in a folder that was typed lies one.
        """
        for keeper in trainer.checkpoint_callbacks:
            if trainer.ckpt_path is None and isinstance(keeper, BestCheckpoint) and keeper.own_folder:
                path = Path(str(keeper.dirpath)) / NAME
                run = Path(trainer.default_root_dir).resolve()
                if path.is_file() and not path.resolve().is_relative_to(run) and not damage(path):
                    self._own(path)

    def _own(self, path: Path) -> None:
        try:
            changes(str(path), read(path).get("run", {}), self.config | {"data": self.data}, [])
        except CheckpointError as error:
            raise CheckpointError(
                error.problem, "type another callbacks.best_checkpoint.dirpath=FOLDER, or remove that file"
            ) from None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say which versions are not those that the checkpoint was written with."""
        before, now = checkpoint.get("run", {}).get("versions", {}), versions()
        differing = [name for name in now if before.get(name, now[name]) != now[name]]
        if differing and trainer.is_global_zero:
            here, there = (", ".join(f"{name} {_shown(of[name])}" for name in differing) for of in (now, before))
            same = "the same to the bit is not promised"
            print(f"going on with {here}; the checkpoint was written with {there}: {same}", flush=True)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the facts."""
        facts = {"format": FORMAT, "versions": versions(), "config": self.config, "data": self.data}
        checkpoint["run"] = facts | {"metrics": self.metrics(trainer), "seconds": self.seconds}

    def metrics(self, trainer: pl.Trainer) -> dict[str, float]:
        """The newest value of everything logged, in this process or before, without Lightning's second names."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        stems = {name: name.removesuffix("_step").removesuffix("_epoch") for name in logged}
        return self._metrics | {k: v for k, v in logged.items() if stems[k] == k or stems[k] not in logged}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring in the allowed changes."""
        self.first_step = trainer.global_step
        must_know(self.config["monitor"], trainer)
        for key, (old, new) in self.changed.items():
            family, _, name = key.partition(".")
            if family == "optimizer":
                for optimizer in trainer.optimizers:
                    _bring_in(optimizer, name, old, new, trainer)
        self.changed = {}


def _bring_in(optimizer: Optimizer, name: str, old: Any, new: Any, trainer: pl.Trainer) -> None:
    """Put an allowed setting into the groups of an optimizer; what is in no group was set when it was made.

    Raises:
        CheckpointError: the optimizer has changed the value by itself since.
    """
    places = [(group, place) for group in optimizer.param_groups if (place := _place(name, group)) in group]
    if name in ("lr", "adamw_lr"):
        for group, _ in places:
            group.update({rate: group[rate] * (new / old) for rate in RATES if rate in group})
        scaled = [group for group, _ in places]
        factors = [new / old if any(group is one for one in scaled) else 1.0 for group in optimizer.param_groups]
        for config in trainer.lr_scheduler_configs:
            scale_rates(config.scheduler, factors)
        return
    equal = [(group, place) for group, place in places if _plain(group[place]) == old]
    if places and not equal:
        raise CheckpointError(
            f"optimizer.{name} cannot change from {old} to {new}: the optimizer has changed it by itself since",
            "type that run's value, or resume=none to train anew",
        )
    for group, place in equal:
        group[place] = tuple(new) if isinstance(new, list) else new


def _place(name: str, group: dict[str, Any]) -> str | None:
    """Under which name a group has a setting; Muon's groups are its own and AdamW's."""
    adamw = name.startswith("adamw_")
    if (adamw or name == "lr") and group.get("use_muon", not adamw) is adamw:
        return None
    return name.removeprefix("adamw_")


def settings(cfg: DictConfig) -> dict[str, Any]:
    """All that the weights at the end depend on, by dotted key; what comes from the environment is not looked up."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
    tree = {name: plain[name] for name in WHOLE}
    tree["trainer"] = {name: plain["trainer"][name] for name in TRAINER if name in plain["trainer"]}
    if ranks.several(cfg):  # more processes are larger batches
        tree["trainer"] |= {name: plain["trainer"][name] for name in ("devices", "num_nodes")}
    tree["callbacks"] = {name: node for name, node in (plain.get("callbacks") or {}).items() if name in SLOTS and node}
    return {key: value for key, value in _leaves(tree) if key not in ELSEWHERE}


def digest(splits: dict[str, Split]) -> str:
    """SHA-256 of the data's arrays; of those above 256 MB an even sample is taken."""
    found = hashlib.sha256()
    seen: set[int] = set()
    for name, split in sorted(splits.items()):
        for key, value in split.arguments().items():
            if not isinstance(value, Tensor):
                found.update(f"{name} {key} {value}".encode())
            elif value.data_ptr() not in seen:
                seen.add(value.data_ptr())
                step = -(-value.nbytes // SAMPLE) or 1
                found.update(f"{name} {key} {value.dtype} {tuple(value.shape)}".encode())
                found.update(value.detach().cpu().reshape(-1)[::step].contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


def changes(path: str, saved: dict[str, Any], now: dict[str, Any], allow: list[str]) -> dict[str, tuple[Any, Any]]:
    """The allowed settings in which a checkpoint differs from the config, (old, new) by key.

    Args:
        path: of the checkpoint, for the message.
        saved: what `RunFacts` put into it; empty where it comes from elsewhere.
        now: `settings` of the config, and `data`.
        allow: keys, or families of keys as `model`, that may differ.

    Raises:
        CheckpointError: others differ, or such that cannot change within a run.
    """
    before = saved.get("config", {}) | ({"data": saved["data"]} if "data" in saved and "data" in now else {})
    if not before:
        return {}
    if saved.get("format", 1) < 2:
        now = {key: value for key, value in now.items() if not _within(key, [f"callbacks.{name}" for name in NEWER])}
    differing = {key: (before.get(key), now.get(key)) for key in now | before if before.get(key) != now.get(key)}
    if "data" not in now:
        differing.pop("data", None)
    allowed = {key: pair for key, pair in differing.items() if _within(key, allow)}
    decays = bool((differing.get(DECAY) or (0, 0))[0]) != bool((differing.get(DECAY) or (0, 0))[1])
    cannot = [*FIXED, DECAY] if decays else [*FIXED]  # biases are in a group of their own where matrices decay
    fixed = [key for key in allowed if _within(key, cannot)]
    if fixed:
        raise CheckpointError(
            f"{fixed[0]} cannot change within a run: its state in {path} has no meaning for another",
            "leave it out of resume.allow, or type resume=none",
        )
    refused = [key for key in differing if key not in allowed]
    if refused:
        shown = "; ".join(_told(key, *differing[key]) for key in sorted(refused, key=_rank)[:4])
        more = f"; and {len(refused) - 4} more" if len(refused) > 4 else ""
        free = [key for key in refused if not _within(key, cannot)]
        allow_them = f"resume.allow=[{','.join(allow + free)}] to go on with these, " if free == refused else ""
        raise CheckpointError(
            f"{path} belongs to another run: {shown}{more}",
            f"type that run's values, {allow_them}or resume=none to train anew",
        )
    return allowed


def _within(key: str, families: list[str]) -> bool:
    return any(key == family or key.startswith(f"{family}.") for family in families)


def _rank(key: str) -> tuple[bool, str]:
    return not key.endswith("._target_"), key


def _told(key: str, old: Any, new: Any) -> str:
    if key == "data":
        return "the data have another content"
    return f"{key} is {_shown(old)} there and {_shown(new)} here"


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)[:60]


def _leaves(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        return [
            leaf for name, part in node.items() for leaf in _leaves(part, f"{prefix}.{name}" if prefix else str(name))
        ]
    return [(prefix, node)]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
