"""Small runs with settings, and moments to kill them at, that are drawn at random."""

import random
from pathlib import Path

EPOCHS, BATCHES = 3, 6
BASE = [
    f"trainer.max_epochs={EPOCHS}",
    "trainer.log_every_n_steps=2",
    "callbacks.picture=null",
    "callbacks.kernel_report=null",
    "model.hidden_size=6",
    "model.num_layers=2",
    "model.dropout=0.3",
    "callbacks.early_stopping.patience=2",
]
SERIES = ["data=mackey_glass", "data.input_length=8", "data.horizon=2", "data.length=700", "data.batch_size=32"]


def some_options(rng, text):
    """A random configuration; `text` is a file to read where the state is carried (tbptt)."""
    optimizer = rng.choice(["adam", "schedule_free", "sgd", "rmsprop", "lbfgs"])
    options = [*BASE, f"optimizer={optimizer}", f"seed={rng.randrange(100)}"]
    options += [f"precision={rng.choice(['fp32', 'bf16_mixed'])}"]
    options += [f"trainer.val_check_interval={rng.choice(['1.0', '0.5'])}"]
    schedule = rng.choice(["none", "one_cycle", "reduce_on_plateau", "cosine"])
    options += [f"lr_scheduler={schedule}"]
    if (optimizer, schedule) == ("schedule_free", "one_cycle"):
        options += ["callbacks.lr_schedule.cycle_momentum=false"]
    options += [f"callbacks.last_checkpoint.every_n_steps={rng.choice(['null', 1, 4])}"]
    options += [f"trainer.max_steps={rng.choice([-1, -1, 999])}"]  # never reached; Lightning counts otherwise with it
    if rng.random() < 0.5:
        options += ["model.hidden_size=20"]  # in bfloat16 another kernel, where the CPU has it
    if optimizer == "lbfgs":
        return [*options, *SERIES, f"trainer.limit_train_batches={BATCHES}", "gradient_clip=none"]
    options += [f"trainer.accumulate_grad_batches={rng.choice([1, 3])}"]
    if rng.random() < 0.4:
        carried = ["data=text", f"data.path={text}", "data.sequence_length=8", "data.batch_size=8", "memory=tbptt"]
        return [*options, *carried, f"trainer.limit_train_batches={BATCHES}", "trainer.limit_val_batches=3"]
    return [*options, *SERIES, f"trainer.limit_train_batches={BATCHES}"]


def some_kills(rng, number=4):
    """Positions in the order of time: first, last and other batches, and validation steps."""
    kills = set()
    while len(kills) < number:
        epoch = rng.randrange(EPOCHS)
        where = rng.choice(["training_step"] * 4 + ["validation_step"])
        batch = rng.choice([0, 1, BATCHES - 1, rng.randrange(BATCHES)]) if where == "training_step" else 0
        kills.add((epoch, where == "validation_step", batch, where))
    return [(where, epoch, batch) for epoch, _, batch, where in sorted(kills)]


def a_text(folder):
    path = Path(folder) / "text.txt"
    rng, words = random.Random(0), ["to", "be", "or", "not", "that", "is", "the", "question"]
    path.write_text(" ".join(rng.choice(words) for _ in range(1500)))
    return path
