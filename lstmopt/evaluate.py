"""The baselines that every result is held against."""

from itertools import islice

import torch

from lstmopt.data.datamodule import DataModule
from lstmopt.loaders.resident import Resident
from lstmopt.tasks.task import Task


@torch.no_grad()
def baselines(task: Task, datamodule: DataModule) -> dict[str, dict[str, float]]:
    """Test metrics of each of the task's simple predictors, the best by the task's primary metric first.

    They get the batches that the datamodule's Trainer has tested, if it has (`limit_test_batches`), otherwise all.
    """
    trainer, loader, test = datamodule.trainer, Resident(), datamodule.splits["test"]
    batch_size = datamodule.batch_size * (trainer.world_size if trainer else 1)
    tested = int(trainer.num_test_batches[0]) if trainer and trainer.num_test_batches else None
    scores = {}
    for name, predict in task.baselines(datamodule.splits["train"]).items():
        metrics = task.metrics()
        for batch in islice(loader.batches(test, batch_size, False, datamodule.seed), tested):
            task.update(metrics, predict(batch), batch)
        scores[name] = {f"test/{key}": float(metric.compute()) for key, metric in metrics.items()}
    sign = -1 if task.higher_is_better else 1
    return dict(sorted(scores.items(), key=lambda item: sign * item[1][f"test/{task.primary}"]))


def improvement(task: Task, value: float, baseline: float) -> float:
    """How much of the baseline's error is gone, as a fraction; for accuracies the error is 1 - accuracy."""
    if task.higher_is_better:
        value, baseline = 1 - value, 1 - baseline
    return 1 - value / baseline if baseline else 0.0
