import dataclasses
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from echotrain.evaluation.figures import (
    ERROR_GAIN,
    contact_sheet,
    error_png,
    gray_png,
    kspace_png,
    learning_curves,
    quality_distribution,
    window,
)
from echotrain.evaluation.history import History


def history(name: str = "run", epochs: int = 3) -> History:
    train = tuple(
        {"kind": "train", "epoch": e, "global_step": 10 * e + s, "loss": 1 / (1 + e), "data_wait_s": 0.01}
        for e in range(epochs)
        for s in (5, 10)
    )
    scores = tuple(
        {"kind": "epoch", "epoch": e, "global_step": 10 * e + 10, "loss": 0.1, "ssim": 0.8 + e / 100, "psnr": 30 + e} for e in range(epochs)
    )
    return History(name=name, train=train, epochs=scores)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def assert_is_standalone_svg(data: bytes) -> None:
    root = ET.fromstring(data)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    links = [value for element in root.iter() for key, value in element.attrib.items() if key.endswith(("href", "src"))]
    assert all(link.startswith("#") for link in links)


@pytest.mark.parametrize("runs", [[history()], [history("a"), history("b_$x^2$")], [history(epochs=0)], [history(epochs=1)]])
def test_learning_curves_are_standalone_and_the_same_at_every_call(runs):
    chart = learning_curves(runs)
    for data in (chart.light, chart.dark):
        assert_is_standalone_svg(data)
    assert chart == learning_curves(runs)
    assert chart.light != chart.dark


def test_a_chart_is_left_as_vectors_and_as_pixels_the_same_at_every_call():
    files = learning_curves([history()]).files()
    assert set(files) == {"svg", "pdf", "png"}
    assert_is_standalone_svg(files["svg"])
    assert files["pdf"].startswith(b"%PDF-")
    assert pixels(files["png"]).shape[:2] == (1080, 1920)
    assert files == learning_curves([history()]).files()


@pytest.mark.parametrize(("anatomy", "count"), [("knee", 6), ("", 1), ("bad $\\frac{$ name", 2), ("<b>&amp;", 5)])
def test_the_distribution_is_drawn_whatever_the_groups_are_called(volume_result, evaluation_of, anatomy, count):
    volumes = [volume_result(str(i), 25 + i, anatomy=anatomy) for i in range(count)]
    chart = quality_distribution(evaluation_of([*volumes, volume_result("b", 30, anatomy="brain"), volume_result("c", 30, float("inf"))]))
    assert_is_standalone_svg(chart.light)
    assert_is_standalone_svg(chart.dark)


def test_drawing_leaves_the_settings_of_matplotlib_alone(volume_result, evaluation_of):
    import matplotlib as mpl

    before = mpl.rcParams.copy()
    quality_distribution(evaluation_of([volume_result("a", 30)]))
    assert dict(mpl.rcParams) == dict(before)


def test_a_picture_has_a_pixel_per_pixel_from_black_at_zero_to_the_given_white():
    image = np.array([[0.0, 0.5, 1.0, 2.0]])
    np.testing.assert_array_equal(pixels(gray_png(image, 1.0)), [[0, 128, 255, 255]])


def test_kspace_is_black_where_nothing_was_acquired_and_nowhere_else():
    rng = np.random.default_rng(0)
    # Five decades, as a scanner's k-space has them, and a first percentile that is darker than it.
    magnitude = 10.0 ** rng.uniform(-9, -4, (40, 30))
    magnitude[:, 1::3] = 0
    shades = pixels(kspace_png(magnitude))
    assert shades.shape == (40, 30)
    assert not shades[:, 1::3].any()
    assert np.delete(shades, np.s_[1::3], axis=1).min() == 38
    assert shades.max() == shades[np.unravel_index(magnitude.argmax(), magnitude.shape)] == 255
    order = np.argsort(magnitude[magnitude > 0])
    assert (np.diff(shades[magnitude > 0][order].astype(int)) >= 0).all()
    # A receiver's gain does not count; a decade is the same step of grey everywhere.
    assert np.abs(pixels(kspace_png(1e6 * magnitude)).astype(int) - shades).max() <= 1
    steps = np.diff(pixels(kspace_png(np.array([[1e-3, 1e-2, 1e-1, 1.0]])))[0].astype(int))
    assert steps[1] == pytest.approx(steps[2], abs=1)


def test_kspace_of_which_nothing_or_one_level_was_acquired_is_still_a_picture():
    assert not pixels(kspace_png(np.zeros((3, 4), np.float32))).any()
    assert set(pixels(kspace_png(np.array([[0.0, 2.0, 2.0]])))[0][1:].tolist()) <= {38, 255}


def test_the_error_reaches_full_scale_at_the_stated_share_of_white(example):
    white = window(example)
    flat = dataclasses.replace(example, target=np.zeros((1, 3), dtype=np.float32))
    shades = pixels(error_png(flat, np.array([[0, white / ERROR_GAIN, white]]), white))[0].astype(int)
    assert shades[0].sum() < 20
    np.testing.assert_array_equal(shades[1], shades[2])
    np.testing.assert_array_equal(pixels(error_png(example, example.target, white)).max(), shades[0].max())


def test_the_window_ignores_a_few_bright_pixels_and_survives_an_empty_target(example):
    bright = example.target.copy().repeat(10, 0).repeat(10, 1)
    bright[0, 0] = 1e6
    assert window(dataclasses.replace(example, target=bright)) <= example.target.max()
    assert window(dataclasses.replace(example, target=np.zeros_like(example.target))) == 1


@pytest.mark.parametrize(("num_slices", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (5, 4, 2), (16, 4, 4), (40, 4, 4)])
def test_a_contact_sheet_shows_evenly_spaced_slices_from_first_to_last(num_slices, columns, rows):
    volume = np.ones((num_slices, 4, 6)) * np.linspace(0.1, 1, num_slices)[:, None, None]
    sheet = pixels(contact_sheet(volume))
    assert sheet.shape == (4 * rows, 6 * columns)
    tiles = sheet[::4, ::6].ravel()
    shown = min(num_slices, 16)
    assert (np.diff(tiles[:shown].astype(int)) > 0).all()
    assert (tiles[shown:] == 0).all()
    assert tiles[shown - 1] == 255


def test_a_contact_sheet_of_an_empty_volume_is_black():
    assert pixels(contact_sheet(np.zeros((2, 4, 4)))).max() == 0
