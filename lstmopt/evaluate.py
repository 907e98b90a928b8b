"""The baselines that every result is held against."""

import torch

from lstmopt.data.datamodule import DataModule
from lstmopt.loaders.resident import Resident
from lstmopt.tasks.task import Task


@torch.no_grad()
def baselines(task: Task, datamodule: DataModule) -> dict[str, dict[str, float]]:
    """Test metrics of each of the task's simple predictors, the best by the task's primary metric first."""
    scores = {}
    for name, predict in task.baselines(datamodule.splits["train"]).items():
        metrics = task.metrics()
        for batch in Resident().batches(datamodule.splits["test"], datamodule.batch_size, False, datamodule.seed):
            task.update(metrics, predict(batch), batch)
        scores[name] = {f"test/{key}": float(metric.compute()) for key, metric in metrics.items()}
    sign = -1 if task.higher_is_better else 1
    return dict(sorted(scores.items(), key=lambda item: sign * item[1][f"test/{task.primary}"]))


def improvement(task: Task, value: float, baseline: float) -> float:
    """How much of the baseline's error is gone, as a fraction; for accuracies the error is 1 - accuracy."""
    if task.higher_is_better:
        value, baseline = 1 - value, 1 - baseline
    return 1 - value / baseline if baseline else 0.0
