"""The LightningModule: random numbers of a step."""

import torch
from hydra import compose, initialize_config_dir

from lstmopt.build import build
from lstmopt.conf_dir import conf_dir


def test_every_evaluation_of_a_line_search_sees_the_same_masks(tmp_path):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = ["optimizer=lbfgs", "model.dropout=0.5", "model.num_layers=2", "model.hidden_size=4"]
        overrides += ["data.input_length=8", "data.horizon=2", "callbacks=none", "logger=none"]
        cfg = compose("train", [*overrides, "trainer.limit_train_batches=3", "trainer.max_epochs=1"])
    parts, states = build(cfg, str(tmp_path)), {}
    loss = parts.module.training_loss

    def watched(batch):
        states.setdefault(parts.trainer.global_step, []).append(torch.get_rng_state())
        return loss(batch)

    object.__setattr__(parts.module, "training_loss", watched)
    parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    assert len(states) == 3 and all(len(seen) > 2 for seen in states.values())
    assert all(torch.equal(one, seen[0]) for seen in states.values() for one in seen)
    assert len({tuple(seen[0].tolist()) for seen in states.values()}) == 3
