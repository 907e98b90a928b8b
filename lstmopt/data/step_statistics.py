"""Mean and spread of the training part's steps."""

import warnings

import torch
from torch import Tensor

EPS = 2 * torch.finfo(torch.float32).eps  # what rounding alone leaves of a constant, as part of it
NAMED = 5  # constant columns that a warning names


def mean_and_std(steps: Tensor, names: list[str]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[F]` over all but the last dimension of `steps` `[..., F]`.

    A constant column keeps a deviation of 1, and is said: otherwise any other value of it would be a huge one.
    """
    over = tuple(range(steps.ndim - 1))
    mean, std = steps.mean(dim=over), steps.std(dim=over)
    varies = std > (EPS * mean.abs()).clamp(min=1e-12)  # false for the NaN of a single step, too
    constant = [names[k] for k in (~varies).nonzero()[:, 0].tolist()]
    if constant:
        more = f" and {len(constant) - NAMED} more" if len(constant) > NAMED else ""
        what = f"{', '.join(constant[:NAMED])}{more} {'are' if len(constant) > 1 else 'is'} constant"
        warnings.warn(f"{what} over the training sequences", stacklevel=2)
    return mean, torch.where(varies, std, 1.0)
