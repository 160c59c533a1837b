"""Memory on both sides of a copy: pinned slots that come back, and a device's memory over many shapes."""

import gc

import torch
from device_runs import MODEL, Steps, experiment_of, lines_batch

from echotrain.data.samples.kspace_lines import LinesBatch
from echotrain.data.samples.slots import SlotPool

NUM_BATCHES = 8
# Of a kernel in front of a copy: a tenth of a second.
SLOW = 200_000_000
SHAPES = [(3, 48, 36), (5, 48, 36), (4, 40, 44), (2, 64, 32), (6, 33, 41)]


def filled(pool: SlotPool, value: int, size: tuple[int, int]) -> LinesBatch:
    """Return a batch in a slot of the pool, all of its k-space and target one value; nothing of it makes the copy wait."""
    kspace, target = pool.empty((2, 8, *size), torch.complex64).fill_(value), pool.empty((2, *size), torch.float32).fill_(value)
    rest = {name: as_pinned(part, like=kspace) if isinstance(part, torch.Tensor) else part for name, part in vars(lines_batch(0)).items()}
    return LinesBatch(**{**rest, "kspace": kspace, "target": target})


def as_pinned(part: torch.Tensor, *, like: torch.Tensor) -> torch.Tensor:
    return part.pin_memory() if torch.cuda.is_available() and like.is_pinned() else part


def in_front(device: torch.device) -> None:
    """Give the device work, behind which a copy has to wait."""
    if device.type == "cuda":
        torch.cuda._sleep(SLOW)


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def test_a_slot_is_not_filled_again_while_it_is_copied(device, record_property):
    size = (256, 256) if device.type == "cuda" else (64, 64)
    pool, places, sent = SlotPool(pin=device.type == "cuda"), set(), []
    for value in range(NUM_BATCHES):
        batch = filled(pool, value, size)
        places.add(batch.kspace.data_ptr())
        in_front(device)
        sent.append(batch.to(device))
        del batch  # From here on its slot may be another batch's.
    settle(device)
    for value, batch in enumerate(sent):
        assert bool((batch.kspace == value).all()), value
        assert bool((batch.target == value).all()), value
    sent.clear()
    del batch
    gc.collect()
    # The pool does hand memory out again, or the above would say nothing.
    again = [filled(pool, 0, size) for _ in range(NUM_BATCHES)]
    assert places & {batch.kspace.data_ptr() for batch in again}
    record_property("places", len(places))


def test_a_byte_that_changes_during_a_copy_is_seen(device):
    kept = filled(SlotPool(pin=device.type == "cuda"), 1, (64, 64))
    in_front(device)
    on_device = kept.to(device)
    kept.kspace.fill_(2)
    settle(device)
    assert bool((on_device.kspace == 2).any())


def in_use(device: torch.device) -> int:
    """Return the bytes that tensors hold on a GPU; on a CPU, how many tensors there are."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    return sum(1 for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter))


def test_memory_stays_flat_over_a_hundred_steps_of_changing_shapes(device, record_property):
    model = type(MODEL)(num_cascades=1, chans=4, pools=1, sens_chans=2, sens_pools=1)
    steps, held, reserved = Steps(experiment_of(model=model, ema_decay=0.9), device), [], []
    for number in range(100):
        steps.do(number, SHAPES[number % len(SHAPES)])
        if number % 10 == 9:
            held.append(in_use(device))
            reserved.append(torch.cuda.memory_reserved() if device.type == "cuda" else 0)
    record_property("held", held)
    record_property("reserved", reserved)
    # The first ten steps meet all shapes, and the batches of all five numbers; what the allocator keeps may still settle in the next.
    assert set(held[1:]) == {held[1]}
    assert set(reserved[2:]) == {reserved[2]}
