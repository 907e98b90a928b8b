"""Every row of the table of combinations is met by an example, and every example by its row alone."""

import pytest
from hydra import compose, initialize_config_dir

from lstmopt import compat
from lstmopt.conf_dir import conf_dir

TEXT = ["data=text", "data.path=book.txt"]
EXAMPLES = {
    "a bidirectional model reads the step": [*TEXT, "model=bilstm"],
    "leaves one output per sequence": [*TEXT, "model.return_sequences=false"],
    "no GPU that torch can use": ["trainer.accelerator=gpu"],
    "mixup mixes numbers": [*TEXT, "callbacks=[default,mixup]"],
    "Nesterov's momentum needs a momentum": ["optimizer=sgd", "optimizer.momentum=0"],
    "no step is part of a graph": ["optimizer=adam", "optimizer.differentiable=true"],
    "two ways of one update": ["optimizer=sgd", "optimizer.foreach=true", "optimizer.fused=true"],
    "fp16_mixed needs a GPU": ["precision=fp16_mixed"],
    "a higher accuracy or f1 is better": ["data=ucr", "monitor=val/accuracy"],
    "a lower value of the monitored metric is better": ["mode=max"],
    "the momentum, which must not be cycled": ["optimizer=schedule_free", "lr_scheduler=one_cycle"],
    "dropout acts between layers": ["model.dropout=0.5"],
    "patch_lstm forecasts each series": ["data=ucr", "model=patch_lstm"],
    "a projection makes outputs smaller": ["model.proj_size=64"],
    "needs it unclipped": ["optimizer=lbfgs", "gradient_clip=value"],
    "gradients cannot be accumulated over batches": ["optimizer=newton_cg", "memory=accumulate"],
    "each time the carried state would go on": [*TEXT, "optimizer=lbfgs", "memory=tbptt"],
    "this optimizer needs their curvature": ["optimizer=kfac", "memory=recompute"],
    "conjugate gradients need more digits": ["optimizer=natural_gradient", "precision=bf16_mixed"],
    "kfac knows one-directional LSTMs only": ["optimizer=kfac", "model=bilstm"],
    "one label per sequence": ["memory=tbptt"],
    "cuts it in time": ["model=bilstm", "memory=recompute"],
    "this model works on whole ones": ["model=awd_lstm", "memory=recompute"],
    "tune.lr has no rate to look for": ["optimizer=prodigy", "tune.lr=true"],
    "what tune.lr finds would have no effect": [
        "lr_scheduler=one_cycle",
        "callbacks.lr_schedule.max_lr=0.1",
        "tune.lr=true",
    ],
    "try in one process": ["tune.batch_size=true", "trainer=ddp", "trainer.accelerator=cpu"],
    "nothing would be validated": ["trainer.check_val_every_n_epoch=3", "trainer.max_epochs=2"],
    "counts its epochs up to trainer.max_epochs": ["trainer.max_epochs=null", "trainer.max_steps=30"],
    "nothing would be trained": ["trainer.max_steps=0"],
    "needs batches in an order of Lightning's": ["trainer.overfit_batches=1"],
    "nothing would be tested": ["trainer.limit_test_batches=0"],
    "the test comes after the training": ["monitor=test/mse"],
    "gradients would be accumulated twice": ["memory=accumulate", "trainer.accumulate_grad_batches=2"],
    "each begin a run of their own": ["trainer.strategy=ddp_spawn"],
    "how they share the work": ["trainer.devices=2", "trainer.accelerator=cpu"],
    "trainer.accelerator=cpu has none": ["trainer=fsdp", "trainer.accelerator=cpu"],
    "processes that srun started": ["trainer=slurm", "trainer.accelerator=cpu"],
    "one process' part of a batch alone": ["trainer=ddp", "optimizer=kfac"],
    "those of the first process alone": ["trainer=ddp", *TEXT, "memory=tbptt"],
    "cannot exchange gradients": ["trainer=ddp", "callbacks=[default,cuda_graph]"],
}
ON_A_GPU = {
    "unscales fp16 gradients itself": ["precision=fp16_mixed", "optimizer=adam", "optimizer.fused=true"],
    "what this optimizer takes from the loss itself": ["precision=fp16_mixed", "optimizer=kfac"],
    "a recorded step is the same kernels": ["trainer=gpu_graph", "memory=recompute"],
    "whole matrices of weights or sums over them": ["trainer=fsdp", "optimizer=prodigy"],
    "told from the biases": ["trainer=fsdp", "optimizer.weight_decay=0.1"],
    "this clipping looks at whole matrices": ["trainer=fsdp", "gradient_clip=adaptive"],
    "the state to go back to": ["trainer=fsdp", "callbacks.gradient_clip.nonfinite=rollback"],
    "short number formats under fsdp": ["trainer=fsdp", "precision=bf16_mixed"],
    "the test reads whole weights": ["trainer=fsdp", "callbacks.best_checkpoint=null"],
}


# the same rule by another key
MORE = {
    "nothing would be trained": ["trainer.limit_train_batches=0"],
    "needs batches in an order of Lightning's": ["trainer.overfit_batches=0.5"],
    "counts its epochs up to trainer.max_epochs": ["trainer.max_epochs=null", "trainer.max_time=00:00:00:05"],
    "nothing would be validated": ["trainer.limit_val_batches=0"],
    "the test comes after the training": ["data=ucr", "monitor=test/accuracy", "mode=max"],
}


def composed(overrides):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("train", overrides)


def test_every_row_has_an_example():
    told = [*EXAMPLES, *ON_A_GPU]
    missing = [rule.problem for rule in compat.RULES if not any(text in rule.problem for text in told)]
    assert not missing
    assert len(told) == len(compat.RULES)


@pytest.mark.parametrize("text", EXAMPLES)
def test_example_is_refused_with_its_reason(text):
    (problem,) = compat.problems(composed(EXAMPLES[text]))
    why, instead = problem.split("\n")
    assert text in why and instead.startswith("  type ")


@pytest.mark.parametrize("text", MORE)
def test_another_example(text):
    (problem,) = compat.problems(composed(MORE[text]))
    assert text in problem


@pytest.mark.parametrize("text", ON_A_GPU)
def test_example_on_a_machine_with_a_gpu(text, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    (problem,) = compat.problems(composed(ON_A_GPU[text]))
    assert text in problem


def test_what_is_typed_instead_mends_it():
    """The overrides that a refusal names, put behind those that were refused, leave no problem."""
    mended = 0
    for overrides in EXAMPLES.values():
        (problem,) = compat.problems(composed(overrides))
        instead = problem.split("  type ")[1].split(" or ")[0].split()
        if not any("accelerator" in word for word in instead):
            assert not compat.problems(composed([*overrides, *instead])), (overrides, instead)
            mended += 1
    assert mended >= 15
