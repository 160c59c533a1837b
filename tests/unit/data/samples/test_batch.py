"""What every batch can do, whatever its samples are."""

from dataclasses import dataclass

import pytest
import torch

from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.batch import Batch
from tests.batches import make_batch, pick


@pytest.mark.parametrize("epoch", [None, 2])
@pytest.mark.parametrize(("start", "stop"), [(0, 2), (1, 5), (3, 4), (0, 5)])
def test_a_part_of_a_batch_is_those_samples_with_all_that_is_theirs_and_no_copy(start, stop, epoch):
    batch = make_batch(num=5, epoch=epoch)
    part, expected = batch.part(start, stop), pick(batch, list(range(start, stop)))
    assert vars(part).keys() == vars(expected).keys()
    for name, value in vars(expected).items():
        assert torch.equal(getattr(part, name), value) if isinstance(value, torch.Tensor) else getattr(part, name) == value, name
    assert part.kspace.data_ptr() == batch.kspace[start].data_ptr()


@dataclass(frozen=True, kw_only=True)
class Odd(Batch):
    extra: object


@pytest.mark.parametrize("extra", [torch.ones(3), torch.tensor(1.0), ("a", "b", "c"), (torch.ones(2), torch.ones(2))])
def test_a_field_that_is_not_one_per_sample_is_never_cut_as_if_it_were(extra):
    ids = (SampleId("d", "v", 0), SampleId("d", "v", 1))
    batch = Odd(weight=torch.ones(2), ids=ids, roots=(1, 2), extra=extra)
    with pytest.raises(AssertionError, match=r"Odd\.extra is not one per sample"):
        batch.part(0, 1)
