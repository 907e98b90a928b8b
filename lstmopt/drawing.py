"""Figures as pixels."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pixels(figure: "Figure") -> np.ndarray:
    """A figure, drawn once: height × width × 3, whole numbers up to 255.

    `savefig` lays a figure out and draws it, and TensorBoard's `add_figure` does both again.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
