"""Linear systems whose matrix is known by its products alone."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Solution(NamedTuple):
    """What conjugate gradients have found.

    Attributes:
        x: the solution `[n]`.
        image: the matrix times x `[n]`.
        negative_curvature: they stopped at a direction d with d A d <= 0.
    """

    x: Tensor
    image: Tensor
    negative_curvature: bool


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    b: Tensor,
    start: Tensor | None,
    preconditioner: Tensor,
    iterations: int,
    tolerance: float,
) -> Solution:
    """Solve A x = b for a symmetric A, which is `product`, in so many iterations at most.

    They end where the residual's norm is below `tolerance` times that of b, and where the curvature along a direction
    is not positive: then with what was found so far, and with b / preconditioner where that is nothing. The
    preconditioner `[n]` is a rough, positive guess of the diagonal of A, up to a factor.

    Reference: Nocedal & Wright 2006, algorithms 5.3 and 7.1; the start: Martens 2010.
    """
    x, image = b.new_zeros(b.shape), b.new_zeros(b.shape)
    if start is not None and bool(start.any()):
        x, image = start.clone(), product(start).clone()
    residual = b - image
    direction = residual / preconditioner
    squared, goal = residual @ direction, tolerance**2 * (b @ b)
    for _ in range(iterations):
        if residual @ residual <= goal:
            break
        moved = product(direction)
        curvature = direction @ moved
        if not curvature > 0:
            return Solution(x, image, True) if bool(x.any()) else Solution(direction, moved, True)
        length = squared / curvature
        x += length * direction
        image += length * moved
        residual -= length * moved
        scaled = residual / preconditioner
        before, squared = squared, residual @ scaled
        direction = scaled + squared / before * direction
    return Solution(x, image, False)
