"""Gradients of pieces and ranks come out as one sum, shared once."""

import pytest
import torch
from many_ranks import run_ranks
from torch import nn

from echotrain.ranks import Ranks
from echotrain.training.gradients import gradient_sync

# What each rank sees, piece by piece.
SEEN = [[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]]


def _accumulate(ranks):
    network = nn.Linear(1, 1, bias=False)
    sync, own = gradient_sync(network, ranks), SEEN[ranks.rank]
    for step in range(2):
        network.zero_grad(set_to_none=True)
        for index, value in enumerate(own):
            is_last = index == len(own) - 1
            with sync.piece(is_last=is_last):
                (sync.network(torch.tensor([[value]])).sum() * sync.scale).backward()
            if not is_last:  # So far it is this rank's alone.
                assert network.weight.grad.item() == pytest.approx(sync.scale * sum(own[: index + 1])), step
        sync.finish()
        assert network.weight.grad.item() == pytest.approx(sum(sum(SEEN[rank]) for rank in range(ranks.world)))


def test_gradients_are_the_sum_over_pieces_and_ranks_and_shared_with_the_last_piece_alone():
    _accumulate(Ranks())
    run_ranks(_accumulate, 2)
