"""TensorBoard in headless Chromium, on a sweep."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_tensorboard.py"


@pytest.mark.skipif(shutil.which("chromedriver") is None, reason="missing: apt-get install chromium chromium-driver")
def test_the_page_shows_scalars_pictures_and_hparams(program):
    done = program("-m", "optimizer=adam,sgd", "trainer=debug", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    command = [sys.executable, str(SCRIPT), str(program.folder / "sweep"), "--hparams-rows", "2"]
    page = subprocess.run([*command, "--screenshots", str(program.folder)], capture_output=True, text=True, timeout=300)
    assert page.returncode == 0, page.stdout + page.stderr
    assert page.stdout.count("\nok") + page.stdout.startswith("ok") >= 9
