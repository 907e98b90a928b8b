"""Cutting a validation part out of labelled sequences."""

import torch
from torch import Tensor


def stratified(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Sample numbers of the larger and of the smaller part, each label in proportion; at least one validates.

    Args:
        labels: `[N]` int64.
        fraction: of each label's samples that go to the second part, rounded.
        seed: seed of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    kept, cut = [], []
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        members = members[torch.randperm(len(members), generator=generator)]
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        cut.append(members[:count])
        kept.append(members[count:])
    return torch.cat(kept).sort().values, torch.cat(cut).sort().values


def random_parts(count: int, val_fraction: float, test_fraction: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sample numbers of train, val and test, drawn at random."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    test, val = round(count * test_fraction), round(count * val_fraction)
    return order[test + val :], order[test : test + val], order[:test]
