"""The techniques in a plain Trainer, with a module that knows nothing of lstmopt, against loops written by hand."""

import csv
import math

import pytest
import torch
from foreign import STEPS_PER_EPOCH, Foreign, fit, sgd
from pytorch_lightning.loggers import CSVLogger

from lstmopt.callbacks.amp import AMP
from lstmopt.callbacks.gradient_norm import GradientNorm
from lstmopt.callbacks.gradient_norm_clipping import GradientNormClipping
from lstmopt.callbacks.gradient_value_clipping import GradientValueClipping
from lstmopt.callbacks.one_cycle import OneCycle
from lstmopt.callbacks.profiler import Profiler
from lstmopt.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau
from lstmopt.callbacks.throughput import Throughput
from lstmopt.errors import ConfigError


def logged_norms(run):
    with open(f"{run.logger.log_dir}/metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row.get("grad_norm/before")]
    return [{key: float(row[key]) for key in ("grad_norm/before", "grad_norm/after")} for row in rows]


def norm_of(gradients):
    return math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))


def test_norm_clipping_by_hand(tmp_path):
    free, _ = fit(tmp_path, module=Foreign(sgd), epochs=1)
    limit = norm_of(free.grads[0]) / 2
    clip = GradientNormClipping(limit)
    module, run = fit(tmp_path, clip, module=Foreign(sgd), epochs=1, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    for plain, clipped in zip(free.grads[0], module.grads[0], strict=True):
        torch.testing.assert_close(clipped, plain / 2, rtol=1e-4, atol=1e-7)
    assert float(clip.after) == pytest.approx(norm_of(module.grads[-1]), rel=1e-4)
    logged = logged_norms(run)
    assert len(logged) == STEPS_PER_EPOCH
    assert logged[0]["grad_norm/before"] == pytest.approx(2 * limit, rel=1e-4)
    assert logged[0]["grad_norm/after"] == pytest.approx(limit, rel=1e-4)


def test_small_gradients_are_left_alone(tmp_path):
    free, _ = fit(tmp_path, module=Foreign(sgd), epochs=1)
    module, _ = fit(tmp_path, GradientNormClipping(1e6), module=Foreign(sgd), epochs=1)
    for plain, clipped in zip(free.grads[-1], module.grads[-1], strict=True):
        assert torch.equal(plain, clipped)


def test_value_clipping_by_hand(tmp_path):
    free, _ = fit(tmp_path, module=Foreign(sgd), epochs=1)
    module, _ = fit(tmp_path, GradientValueClipping(0.01), module=Foreign(sgd), epochs=1)
    for plain, clipped in zip(free.grads[0], module.grads[0], strict=True):
        assert torch.equal(clipped, plain.clamp(-0.01, 0.01))


def test_norm_is_only_watched(tmp_path):
    free, _ = fit(tmp_path, module=Foreign(sgd), epochs=1)
    module, run = fit(tmp_path, GradientNorm(), module=Foreign(sgd), epochs=1, logger=CSVLogger(tmp_path))
    assert torch.equal(free.grads[-1][0], module.grads[-1][0])
    (logged,) = logged_norms(run)
    assert logged["grad_norm/before"] == logged["grad_norm/after"] == pytest.approx(norm_of(free.grads[0]), rel=1e-5)


@pytest.mark.parametrize("make", [lambda: GradientNormClipping(0), lambda: GradientValueClipping(-1), lambda: AMP("8")])
def test_bad_arguments_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_clipping_twice_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="twice"):
        fit(tmp_path, GradientNormClipping(), gradient_clip_val=1.0)


@pytest.mark.bf16
def test_amp_computes_in_bfloat16_and_keeps_float32_weights(tmp_path):
    module, run = fit(tmp_path, AMP("bf16-mixed"))
    assert module.dtypes == {torch.bfloat16}
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert run.precision == "bf16-mixed"


def test_without_bfloat16_arithmetic_amp_stays_in_float32_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    module, run = fit(tmp_path / "amp", AMP("bf16-mixed"))
    assert module.dtypes == {torch.float32} and run.precision == "32-true"
    assert "32-true (this CPU has no bfloat16 arithmetic" in capsys.readouterr().out
    plain, _ = fit(tmp_path / "plain")
    for one, other in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_fp16_on_a_cpu_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="GPU"):
        fit(tmp_path, AMP("16-mixed"))


def test_amp_beside_another_precision_of_the_trainer_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="64-true"):
        fit(tmp_path, AMP("bf16-mixed"), precision="64-true")


def test_throughput_counts_samples(tmp_path):
    speed = Throughput()
    fit(tmp_path, speed, epochs=3)
    assert speed._samples == 60
    assert speed.samples_per_second == pytest.approx(60 / speed._seconds)
    assert speed.seconds_to_first_step > 0


FIVE = {
    "one_cycle": lambda: OneCycle(max_lr=0.02),
    "reduce_lr_on_plateau": ReduceLROnPlateau,
    "gradient_norm_clipping": lambda: GradientNormClipping(1.0),
    "amp": lambda: AMP("bf16-mixed"),
    "profiler": lambda: Profiler("pytorch"),
}


@pytest.mark.parametrize(
    "names",
    [
        *([name] for name in FIVE),
        [n for n in FIVE if n != "reduce_lr_on_plateau"],
        [n for n in FIVE if n != "one_cycle"],
    ],
    ids="+".join,
)
def test_with_a_module_that_knows_nothing_of_lstmopt(names, tmp_path):
    module, _ = fit(tmp_path, *(FIVE[name]() for name in names), epochs=3, logger=CSVLogger(tmp_path))
    fresh = Foreign()
    assert all(p.isfinite().all() for p in module.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(module.parameters(), fresh.parameters(), strict=True))
