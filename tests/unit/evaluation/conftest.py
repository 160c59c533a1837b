from collections.abc import Callable

import numpy as np
import pytest

from echotrain.evaluation.results import Evaluation, EvaluationInfo, Example, MethodInfo, VolumeAttributes, VolumeResult
from echotrain.metrics.table import Quality


def make_volume(
    volume: str, psnr: float, gain: float = 5.0, anatomy: str = "knee", contrast: str = "PD", acceleration: float = 4
) -> VolumeResult:
    def quality(decibels: float) -> Quality:
        return {"psnr": decibels, "ssim": decibels / 50, "nmse": 1 / decibels}

    return VolumeResult(
        dataset="mosaic",
        volume=volume,
        attributes=VolumeAttributes(anatomy, contrast, acceleration),
        num_slices=10,
        scores={"zero_filled": quality(psnr), "model": quality(psnr + gain)},
    )


def make_example(volume: str = "a", shape: tuple[int, int] = (12, 10)) -> Example:
    target = np.random.default_rng(0).random(shape, dtype=np.float32)
    return Example(
        dataset="mosaic",
        volume=volume,
        slice=5,
        attributes=VolumeAttributes("knee", "PD", 4),
        max_value=float(target.max()),
        images={"zero_filled": 0.5 * target, "model": 0.9 * target},
        target=target,
        masked_kspace=np.random.default_rng(1).random((2 * shape[0], shape[1] + 3), dtype=np.float32) * (np.arange(shape[1] + 3) % 3 > 0),
    )


METHODS = {"zero_filled": MethodInfo(), "model": MethodInfo(model="8 cascades", checkpoint="s3://lab/best")}


def make_evaluation(volumes, examples=(), name: str = "VarNet x4") -> Evaluation:
    info = EvaluationInfo(name=name, catalog="s3://lab/mosaic@3", split="test")
    return Evaluation(info=info, methods=METHODS, volumes=tuple(volumes), examples=tuple(examples))


@pytest.fixture
def evaluation_of() -> Callable[..., Evaluation]:
    return make_evaluation


@pytest.fixture
def volume_result() -> Callable[..., VolumeResult]:
    return make_volume


@pytest.fixture
def example() -> Example:
    return make_example()


@pytest.fixture
def evaluation() -> Evaluation:
    volumes = [make_volume(f"knee{i}", 25 + i, 4 + i % 3, contrast=("PD", "PD_FS")[i % 2]) for i in range(6)]
    volumes += [make_volume("brain0", 30, 6, anatomy="brain", contrast="T2"), make_volume("brain1", 31, 5, anatomy="brain", contrast="T2")]
    return make_evaluation(volumes, (make_example("knee0"), make_example("brain0", (9, 14))))
