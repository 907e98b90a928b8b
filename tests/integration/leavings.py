"""What a run leaves that time has no part in, to the bit."""

import hashlib
import json

import torch

SILENT = ("throughput/", "hp_metric")  # tags that tell the time
TIMED = ("Throughput", "Threads")  # callbacks whose state is a measurement


def left(folder):
    """All that a run leaves and that time has no part in, name by name."""
    found = {}
    for name in ("last", "best"):
        saved = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        found |= {f"{name} {key}": digest(saved[key]) for key in ("state_dict", "optimizer_states", "lr_schedulers")}
        found |= {f"{name} {key}": saved[key] for key in ("epoch", "global_step")}
        if name == "last":
            found["last loops"] = digest(plain_loops(saved["loops"]))
            states = {k: v for k, v in saved["callbacks"].items() if not k.startswith(TIMED)}
            found |= {f"last {k.partition('{')[0]}": digest(scrub(v, folder)) for k, v in states.items()}
            found["last train loss"] = digest(saved["train_loss"])
    found["curves"] = curves(folder)
    result = json.loads((folder / "results.json").read_text())
    found["results"] = {key: result[key] for key in ("status", "best", "metrics", "baseline", "epochs", "steps")}
    return found


def plain_loops(loops):
    """The counters of the fit loop; how often the data loader was asked is none of them."""
    fit = dict(loops["fit_loop"])
    return {key: value for key, value in fit.items() if "combined_loader" not in key}


def scrub(value, folder):
    """Without the folder's name."""
    if isinstance(value, dict):
        return {scrub(k, folder): scrub(v, folder) for k, v in value.items()}
    return value.replace(str(folder), "") if isinstance(value, str) else value


def digest(value):
    """SHA-256 of nested plain types and tensors, to the bit."""
    found = hashlib.sha256()

    def add(part):
        if isinstance(part, dict):
            for key in sorted(part, key=str):
                found.update(f"{key}:".encode())
                add(part[key])
        elif isinstance(part, list | tuple):
            for one in part:
                add(one)
        elif isinstance(part, torch.Tensor):
            found.update(f"{part.dtype}{tuple(part.shape)}".encode())
            found.update(part.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(part).encode())

    add(value)
    return found.hexdigest()[:16]


def curves(folder):
    """(step, value) of every scalar on the TensorBoard page; files of one second are read in any order."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(SILENT)]
    return {tag: sorted((point.step, point.value) for point in events.Scalars(tag)) for tag in tags}
