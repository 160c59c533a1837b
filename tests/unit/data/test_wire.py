"""Batches between processes: whatever kind it is, what arrives is what was sent, to the bit, in memory of its own."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from echotrain.data.planned import PlannedStream
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.image import ImageData
from echotrain.data.samples.kspace_kt import KtData
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.samples.slots import SlotPool
from echotrain.data.samples.wire import pack, packed_nbytes, unpack
from tests.catalogs import write_catalog
from tests.frame_catalogs import write_frames
from tests.images import random_volumes, write_images


def of_lines(folder):
    write_catalog(folder, volumes=4, shapes=((3, 24, 20), (5, 24, 20), (2, 18, 14)))
    return LinesData(catalog=str(folder))


def of_frames(folder):
    write_frames(folder)
    return KtData(catalog=str(folder), num_adjacent=3)


def of_images(folder):
    write_images(folder, random_volumes((3, 17, 12), (2, 12, 9)))
    return ImageData(catalog=str(folder))


def sent(batch: Batch, pool: SlotPool) -> tuple[Batch, np.ndarray]:
    """Return a batch that has gone through memory which must not be written to, and that memory."""
    body = np.zeros(packed_nbytes(batch), np.uint8)
    head = pack(batch, body)
    body.flags.writeable = False
    return unpack(head, body, type(batch), pool), body


def assert_equal(one: Batch, two: Batch) -> None:
    assert type(one) is type(two)
    for f in dataclasses.fields(one):
        first, second = getattr(one, f.name), getattr(two, f.name)
        if isinstance(first, torch.Tensor):
            assert first.dtype == second.dtype, f.name
            # As bytes: a frame's memory outside of what was read may be anything, NaN included.
            assert first.shape == second.shape, f.name
            assert first.numpy().tobytes() == second.numpy().tobytes(), f.name
        else:
            assert first == second, f.name
            assert [type(each) for each in first] == [type(each) for each in second], f.name


@pytest.mark.parametrize("make", [of_lines, of_frames, of_images])
def test_what_arrives_is_what_was_sent(make, tmp_path):
    stream = PlannedStream(make(tmp_path), seed=1, batch_size=3)
    batches = [batch for step in itertools.chain(stream.steps(0), stream.steps(1)) for batch in step.batches]
    assert len(batches) > 2
    pool = SlotPool()
    arrived = [sent(batch, pool) for batch in batches]
    for before, (after, body) in zip(batches, arrived, strict=True):
        assert_equal(before, after)
        assert {type(sample) for sample in after.ids} == {type(sample) for sample in before.ids}
        assert after.generators("mask")[0].initial_seed() == before.generators("mask")[0].initial_seed()
        sent_bytes = body.tobytes()
        for name, tensor in vars(after).items():
            if isinstance(tensor, torch.Tensor):
                assert not np.shares_memory(tensor.numpy(), body), name
                assert not np.shares_memory(tensor.numpy(), getattr(before, name).numpy()), name
                tensor.zero_()  # It is writeable.
        assert body.tobytes() == sent_bytes
    stream.close()


def test_bodies_lie_at_addresses_that_processors_like(tmp_path):
    stream = PlannedStream(of_lines(tmp_path), seed=1, batch_size=3)
    for step in stream.steps(0):
        for batch in step.batches:
            assert packed_nbytes(batch) % 64 == 0
            tensors = [tensor for tensor in vars(batch).values() if isinstance(tensor, torch.Tensor)]
            assert packed_nbytes(batch) >= sum(tensor.numpy().nbytes for tensor in tensors)
    stream.close()
