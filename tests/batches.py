"""Small batches, made without data."""

import dataclasses

import torch
from torch import nn

from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.kspace_lines import LinesBatch
from echotrain.physics.coils import rss
from echotrain.physics.crop import center_crop
from echotrain.physics.fft import fft2c
from echotrain.tasks.task import Task


def make_batch(num: int = 3, size: tuple[int, int] = (24, 20), recon: tuple[int, int] = (15, 13), epoch: int | None = None) -> LinesBatch:
    """Return slices of noise of two coils, every other line acquired; in an epoch, with what is drawn from in it."""
    images = torch.randn(num, 2, *size, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(num, 1, 1, size[1], dtype=torch.bool)
    mask[..., ::2] = True
    target = center_crop(rss(images), recon)
    ids = tuple(SampleId("simulated", "v", index) for index in range(num))
    return LinesBatch(
        kspace=fft2c(images),
        mask=mask,
        num_low_frequencies=torch.ones(num, dtype=torch.int64),
        coil_mask=torch.ones(num, 2, dtype=torch.bool),
        target=target,
        max_value=target.amax().expand(num).clone(),
        weight=torch.ones(num),
        ids=ids,
        roots=() if epoch is None else tuple(sample.root(7, epoch) for sample in ids),
    )


def assert_bf16_stays_near(task: Task, model: nn.Module, batch: LinesBatch) -> None:
    """Assert that a batch's losses under bf16 are float32 and near those without it, and that their gradients are finite."""
    exact = task.loss(model, batch).per_sample
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = task.loss(model, batch).per_sample
        rough.sum().backward()
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.02, rtol=0.02)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def pick(batch: LinesBatch, rows: list[int]) -> LinesBatch:
    """Return some samples of a batch."""
    tensors = {name: value[rows] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(
        batch, **tensors, ids=tuple(batch.ids[row] for row in rows), roots=tuple(batch.roots[row] for row in rows if batch.roots)
    )
