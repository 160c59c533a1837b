"""What would hold a device up: waits for it in a step, and breaks of a compiled graph."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from device_runs import MODEL, Steps, experiment_of
from torch._dynamo.utils import counters

from echotrain.benchmarks import mae_step
from echotrain.models.layers.norm_unet import NormUnet
from echotrain.models.unrolled import sensitivity
from echotrain.models.unrolled.varnet import compile_unets

READS = ("item", "tolist", "__float__", "__bool__", "__int__", "nonzero", "cpu", "numpy")


def _noting(real: Callable, name: str, noted: list[str]) -> Callable:
    return lambda self, *args, **options: noted.append(name) or real(self, *args, **options)


@contextmanager
def noting_waits(device: torch.device, patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Note whatever waits for the device; on a CPU, whatever would wait for another one."""
    noted: list[str] = []
    with patch.context() as inner, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device.type == "cpu":
            inner.setattr(torch.optim.Adam, "step", lambda self: None)  # Here it reads its own counts.
            for name in READS:
                inner.setattr(torch.Tensor, name, _noting(getattr(torch.Tensor, name), name, noted))
            yield noted
            return
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield noted
        finally:
            torch.cuda.set_sync_debug_mode("default")
            noted += [str(each.message) for each in caught if "called a synchronizing" in str(each.message)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_waits_for_the_device_once(device, precision, monkeypatch, record_property):
    monkeypatch.setattr(sensitivity, "_leaves_out_padding", lambda device: False)  # As on a GPU.
    steps = Steps(experiment_of(precision=precision, ema_decay=0.9), device)
    assert_one_wait_each(steps.do, device, monkeypatch, record_property)


@pytest.mark.gpu
def test_a_step_of_a_masked_autoencoder_waits_once(monkeypatch, record_property):
    pytest.importorskip("transformers", reason="transformers, whose network it is, is not installed")
    device = torch.device("cuda")
    step = mae_step.our_step(mae_step.MaeCase.small(device="cuda"))
    assert_one_wait_each(lambda _: step(), device, monkeypatch, record_property)


def assert_one_wait_each(do: Callable[[int], object], device: torch.device, patch: pytest.MonkeyPatch, record: Callable) -> None:
    do(0)
    do(1)
    waits = []
    for number in range(2, 5):
        with noting_waits(device, patch) as noted:
            do(number)
        waits.append(noted)
    record("waits_per_step", max(map(len, waits)))
    # Fewer would mean that the one at which a step reads its numbers was not seen.
    assert [len(each) for each in waits] == [1, 1, 1], waits


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about torch
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_regularizers_are_compiled_whole_and_once_for_all_cascades(device, precision, record_property):
    torch._dynamo.reset()
    counters.clear()
    experiment = experiment_of(precision=precision, model=type(MODEL)(**{**vars(MODEL), "num_cascades": 12, "pools": 1, "sens_pools": 1}))
    steps = Steps(experiment, device)
    # A CPU generates no code for it, which takes minutes.
    compile_unets(steps.state.network, backend="aot_eager" if device.type == "cpu" else "inductor")
    losses = [steps.do(number).sums["loss"] for number in (0, 1)]
    graphs = counters["stats"]["unique_graphs"]
    record_property("graphs", graphs)
    assert dict(counters["graph_break"]) == {}
    # Sensitivities, and the cascades' regularizer.
    assert graphs == 2
    plain = Steps(experiment, device)
    assert losses == pytest.approx([plain.do(number).sums["loss"] for number in (0, 1)], rel=1e-4 if precision == "fp32" else 0.03)


def test_a_break_of_the_graph_would_be_seen(device):
    torch._dynamo.reset()
    counters.clear()

    class Reading(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.sum().item() > 0 else x

    network = NormUnet(4, 1).to(device)
    network.unet = Reading()
    compile_unets(network, backend="eager")
    network(torch.view_as_complex(torch.randn(1, 16, 16, 2)).to(device))
    assert counters["graph_break"]
