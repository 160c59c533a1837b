"""Slices that were measured at several times are shown in motion."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from echotrain.errors import ConfigError
from echotrain.evaluation.report import render_report
from echotrain.evaluation.results import Evaluation, EvaluationInfo, Example, MethodInfo, VolumeAttributes, VolumeResult
from echotrain.evaluation.stored import read_evaluation, write_evaluation
from echotrain.storage.local import LocalStore

FRAMES = 5


def evaluation(num_frames=FRAMES, **frames):
    rng = np.random.default_rng(3)
    moving = {name: rng.random((num_frames, 13, 17), np.float32) for name in ("zero_filled", "model", "target")}
    heart = VolumeAttributes("heart", "cine", 6.0)
    example = Example(
        dataset="d",
        volume="v",
        slice=1,
        attributes=heart,
        max_value=1.0,
        target=moving["target"][0],
        images={name: moving[name][0] for name in ("zero_filled", "model")},
        frames=frames.get("frames", moving),
    )
    scores = {name: {"psnr": 30.0, "ssim": 0.9, "nmse": 0.1} for name in ("zero_filled", "model")}
    volume = VolumeResult(dataset="d", volume="v", attributes=heart, num_slices=FRAMES, scores=scores)
    methods = {"zero_filled": MethodInfo(), "model": MethodInfo()}
    return Evaluation(info=EvaluationInfo(name="e"), methods=methods, volumes=(volume,), examples=(example,))


def test_frames_are_stored_and_read_back(tmp_path):
    store = LocalStore(tmp_path)
    write_evaluation(store, evaluation())
    (example,) = read_evaluation(store).examples
    (expected,) = evaluation().examples
    assert set(example.frames) == {"zero_filled", "model", "target"}
    for name, frames in expected.frames.items():
        np.testing.assert_array_equal(example.frames[name], frames)


def test_the_page_shows_them_one_after_the_other_and_a_still_to_whoever_asks_for_no_motion():
    page = render_report([evaluation()])
    moving = re.findall(
        r'<picture><source media="\(prefers-reduced-motion: reduce\)" srcset="data:image/png;base64,([^"]+)">'
        r'<img src="data:image/png;base64,([^"]+)"',
        page,
    )
    assert len(moving) == 4  # Both methods, the target, and what the model got wrong.
    for still, movie in moving:
        first, animated = (Image.open(io.BytesIO(base64.b64decode(data))) for data in (still, movie))
        assert getattr(first, "n_frames", 1) == 1
        assert animated.n_frames == FRAMES
        assert animated.info["loop"] == 0
        durations = []
        pictures = []
        for number in range(FRAMES):
            animated.seek(number)
            durations.append(animated.info["duration"])
            pictures.append(np.asarray(animated.convert("RGB")))
        assert sum(durations) == pytest.approx(1000)
        np.testing.assert_array_equal(pictures[0], np.asarray(first.convert("RGB")))
        assert len({picture.tobytes() for picture in pictures}) == FRAMES
    assert f"{FRAMES} frames" in page


def test_a_slice_of_one_time_does_not_move():
    page = render_report([evaluation(frames={})])
    assert 'reduced-motion: reduce)" srcset' not in page
    assert "frames" not in re.sub(r"<style.*?</style>", "", page, flags=re.S)


def test_frames_of_some_methods_alone_are_refused():
    with pytest.raises(ConfigError, match="frames of e: must be of target and of all methods"):
        evaluation(frames={"model": np.zeros((2, 13, 17), np.float32)})
