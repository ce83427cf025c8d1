"""Tensors for training from decoded pictures: class weights of a draw."""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(label: Tensor, balance: float) -> Tensor:
    """(N,) weight of each image in a draw with replacement: classes appear as count ** (1 - balance). float64, sums to 1."""
    counts = torch.bincount(label.cpu()).double()
    share = torch.where(counts > 0, counts.clamp_min(1) ** (1 - balance), 0.0)
    weights = (share / counts.clamp_min(1))[label.cpu()]
    return weights / weights.sum()
