"""Figures as pixels, beside matplotlib's own file."""

import io

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from lstmopt.drawing import pixels


def test_pixels_are_those_of_a_saved_figure():
    def figure():
        one = Figure(figsize=(3, 2), layout="constrained")
        axes = one.subplots()
        axes.plot([0, 1, 4, 9], label="squares")
        axes.legend()
        return one

    file = io.BytesIO()
    figure().savefig(file, format="png", dpi=100)
    file.seek(0)
    saved = np.rint(imread(file)[..., :3] * 255)
    drawn = pixels(figure())
    assert drawn.shape == (200, 300, 3) and drawn.dtype == np.uint8
    assert (np.abs(saved - drawn) > 8).mean() < 0.01 and 0 < (drawn < 128).mean() < 0.5
