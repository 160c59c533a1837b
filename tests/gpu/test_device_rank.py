"""One rank of the device's own backend (NCCL on a GPU), through everything that ``Ranks`` agrees on."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from device_runs import Steps, experiment_of, new_state

from echotrain.ranks import Ranks
from echotrain.training import step as step_module
from echotrain.training.gradients import DataParallelSync
from echotrain.training.shared_state import check_buffers


@pytest.fixture
def ranks(device, tmp_path, monkeypatch) -> Iterator[Ranks]:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "lo")
    own = {"device_id": torch.device("cuda", 0)} if device.type == "cuda" else {}
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1, **own)
    # As ``of_process_group`` makes them where there is another rank to agree with.
    yield Ranks(rank=0, world=1, device=torch.device(device.type, 0) if own else device, group=dist.new_group(backend="gloo"))
    dist.destroy_process_group()


def test_a_rank_agrees_with_itself_over_the_devices_backend(ranks, monkeypatch):
    used, real = [], dist.all_reduce
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, *args, group=None: used.append(group) or real(tensor, *args, group=group))
    assert Ranks.of_process_group(ranks.device) == Ranks(device=ranks.device)
    assert ranks.is_first
    assert ranks.total([1.5, 2**53 + 2]) == [1.5, 2**53 + 2]
    statistics = torch.arange(12.0, device=ranks.device).view(3, 4).t().requires_grad_()
    summed = ranks.add_up(statistics)
    assert torch.equal(summed, statistics)
    assert summed.device == statistics.device
    assert summed.data_ptr() != statistics.data_ptr()
    # Numbers over the CPU, tensors over what joins devices: the default group is NCCL's.
    assert used == [ranks.group, ranks.group if ranks.device.type == "cpu" else None]
    assert dist.get_backend() == ("gloo" if ranks.device.type == "cpu" else "nccl")
    assert ranks.gather({"rank": 0}) == [{"rank": 0}]
    assert ranks.share(["of rank 0"]) == ["of rank 0"]


def test_a_step_under_ddp_is_the_step_of_one(ranks, monkeypatch):
    experiment = experiment_of(ema_decay=0.9, micro_batch=1)
    alone = Steps(experiment, ranks.device)
    monkeypatch.setattr(step_module, "gradient_sync", DataParallelSync)
    together = Steps(experiment, ranks.device, new_state(experiment, ranks.device), ranks)
    for number in range(2):
        (ours, theirs) = (steps.do(number) for steps in (together, alone))
        assert ours.sums == pytest.approx(theirs.sums, rel=1e-5)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)
    check_buffers(together.state.network, ranks)
