"""Several methods beside each other: only what they share is compared, and pairs are pairs."""

import base64
import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import wilcoxon

from echotrain.evaluation.comparison import compare
from echotrain.evaluation.figures import ERROR_GAIN
from echotrain.evaluation.html import shared_pictures
from echotrain.evaluation.report import render_report
from echotrain.evaluation.results import Evaluation, EvaluationInfo, Example, MethodInfo, VolumeAttributes, VolumeResult

ZERO_FILLED = "Zero-filled"


def volume(name, gain, *, acceleration=4.0, zero_filled=20.0):
    base = {"nmse": 0.1 * zero_filled, "psnr": zero_filled, "ssim": 0.5}
    better = {"nmse": 0.05, "psnr": zero_filled + gain, "ssim": 0.5 + gain / 100}
    attributes = VolumeAttributes("knee", "PD", acceleration)
    return VolumeResult(dataset="d", volume=name, attributes=attributes, num_slices=3, scores={"zero_filled": base, "model": better})


def picture(name, value, acceleration=4.0):
    image = np.full((8, 8), value, np.float32)
    attributes = VolumeAttributes("knee", "PD", acceleration)
    images = {"zero_filled": image, "model": image}
    return Example(dataset="d", volume=name, slice=1, attributes=attributes, max_value=1.0, target=image, images=images)


def evaluation(model, volumes, *, examples=(), name="", checkpoint="", data=""):
    methods = {"zero_filled": MethodInfo(), "model": MethodInfo(model=model, checkpoint=checkpoint)}
    info = EvaluationInfo(name=name or model, data=data and json.dumps(data))
    return Evaluation(info=info, methods=methods, volumes=tuple(volumes), examples=tuple(examples))


def cells(table):
    return {row[0]: row[1:] for section in table.sections for row in section.rows}


def test_only_volumes_that_all_methods_have_are_counted():
    first = evaluation("VarNet", [volume("a", 4.0), volume("b", 6.0), volume("c", 60.0)])
    second = evaluation("ESPIRiT", [volume("a", 1.0), volume("b", 1.0)])
    table = compare([first, second]).quality
    assert table.columns[:3] == ("Method", "PSNR (dB)\nR = 4, n = 2", "SSIM\nR = 4, n = 2")
    rows = cells(table)
    assert list(rows) == [ZERO_FILLED, "VarNet", "ESPIRiT"]
    assert [row[0] for row in rows.values()] == ["20.00 ± 0.00", "25.00 ± 1.41", "21.00 ± 0.00"]


def test_a_method_at_two_accelerations_is_one_row():
    sides = [evaluation("VarNet", [volume("a", 4.0, acceleration=r)], name=f"at {r:g}", checkpoint="w") for r in (3.0, 4.0)]
    sides += [evaluation("ESPIRiT", [volume("a", 1.0, acceleration=4.0)])]
    table = compare(sides).quality
    assert [column.partition("\n")[2] for column in table.columns[1::3]] == ["R = 3, n = 1", "R = 4, n = 1"]
    assert cells(table)["ESPIRiT"][:3] == ("", "", "")
    assert cells(table)["VarNet"][3] == "24.00"


def test_methods_of_one_name_are_told_apart_by_their_evaluations():
    models = [evaluation("VarNet", [volume("a", 4.0)], name=name, checkpoint=name) for name in ("spine", "knee")]
    assert list(cells(compare(models).quality)) == [ZERO_FILLED, "VarNet: spine", "VarNet: knee"]


def test_pairs_are_tested_by_signed_ranks():
    gains = [0.5, 1.5, -0.3, 2.0, 0.7, 0.9, 1.1]
    first = evaluation("ESPIRiT", [volume(str(i), 1.0, zero_filled=20.0 + i) for i in range(7)])
    second = evaluation("VarNet", [volume(str(i), 1.0 + gain, zero_filled=20.0 + i) for i, gain in enumerate(gains)])
    pairs = cells(compare([first, second]).pairs)
    row = pairs["VarNet\nagainst ESPIRiT"]
    assert row[:2] == ("4", "7")
    assert row[2].startswith(f"+{np.mean(gains):.2f}\n[")
    assert float(row[3]) == pytest.approx(wilcoxon(gains).pvalue, rel=0.05)
    assert set(pairs) == {"ESPIRiT\nagainst Zero-filled", "VarNet\nagainst Zero-filled", "VarNet\nagainst ESPIRiT"}


def test_few_pairs_have_no_p_value():
    both = [evaluation(name, [volume("a", gain), volume("b", gain)]) for name, gain in (("x", 1.0), ("y", 2.0))]
    assert cells(compare(both).pairs)["y\nagainst x"][3] == "–"


def test_evaluations_that_acquired_other_lines_are_no_pairs():
    first = evaluation("VarNet", [volume("a", 4.0)])
    second = evaluation("ESPIRiT", [volume("a", 1.0, zero_filled=21.0)])
    assert compare([first, second]).pairs is None
    assert compare([first, second]).unpaired.startswith("Evaluations of one acceleration acquired different lines")
    assert "acquired different lines" in render_report([first, second])


MASK = {"kind": "random", "accelerations": [4], "center_fractions": [0.08]}


def of_coils(model, coils, zero_filled, mask=MASK, **options):
    data = {"mask": mask, **({"coils": coils} if coils else {})}
    return evaluation(model, [volume(str(i), 4.0, zero_filled=zero_filled + i) for i in range(7)], data=data, **options)


def test_virtual_coils_change_the_baseline_and_make_no_other_volumes():
    """One mask acquires the same lines of a volume, whatever its coils become: that is a pair, of two baselines."""
    found = compare([of_coils("VarNet", 0, 20.0), of_coils("VarNet", 8, 20.4), of_coils("ESPIRiT", 8, 20.4)])
    assert found.unpaired == ""
    rows = cells(found.quality)
    assert list(rows) == [ZERO_FILLED, "Zero-filled, 8 virtual coils", "VarNet", "VarNet, 8 virtual coils", "ESPIRiT"]
    assert (rows[ZERO_FILLED][0], rows["Zero-filled, 8 virtual coils"][0]) == ("23.00 ± 2.16", "23.40 ± 2.16")
    assert cells(found.pairs)["VarNet, 8 virtual coils\nagainst VarNet"][2].startswith("+0.40")
    # Numbers that are equal are written in two ways.
    floats = {**MASK, "accelerations": [4.0]}
    assert compare([of_coils("a", 0, 20.0), of_coils("b", 8, 20.4, floats)]).pairs is not None


def test_why_volumes_are_no_pairs_is_what_is_the_case():
    other = {**MASK, "kind": "equispaced"}
    for second, reason in (
        (of_coils("b", 8, 20.4, other), "Evaluations of one acceleration have different masks"),
        (of_coils("b", 0, 20.4, other), "Evaluations of one acceleration acquired different lines"),
        (of_coils("b", 0, 20.4), "Evaluations with the same mask have other images of one baseline"),
        (dataclasses.replace(of_coils("b", 8, 20.4), info=EvaluationInfo(name="b")), "Evaluations of one acceleration acquired different"),
        (of_coils("b", 8, 20.4, None), "Nothing shows that evaluations"),
        (evaluation("b", [volume("another", 1.0)]), "Evaluations share no volume of one acceleration"),
    ):
        found = compare([of_coils("a", 0, 20.0), second])
        assert found.pairs is None
        assert found.unpaired.startswith(reason)
        assert reason in render_report([of_coils("a", 0, 20.0), second])


def test_slices_that_every_method_shows_are_shown_side_by_side():
    first = evaluation("VarNet", [volume("a", 4.0), volume("b", 1.0)], examples=[picture("a", 0.5), picture("b", 0.5)])
    second = evaluation("ESPIRiT", [volume("a", 1.0), volume("b", 1.0)], examples=[picture("a", 0.25)])
    (shared,) = compare([first, second]).examples
    assert shared.volume == "a"
    assert {label: float(image[0, 0]) for label, image in shared.images.items()} == {ZERO_FILLED: 0.5, "VarNet": 0.5, "ESPIRiT": 0.25}
    alone = dataclasses.replace(second, examples=())
    assert compare([first, alone]).examples == ()


@pytest.mark.parametrize("order", [1, -1])
def test_the_kspace_is_that_of_whichever_method_has_kept_it(order):
    acquired = np.ones((4, 3), np.float32)
    kept = dataclasses.replace(picture("a", 0.5), masked_kspace=acquired)
    both = [
        evaluation("VarNet", [volume("a", 4.0)], examples=[kept]),
        evaluation("ESPIRiT", [volume("a", 1.0)], examples=[picture("a", 0.25)]),
    ]
    (shared,) = compare(both[::order]).examples
    assert shared.masked_kspace is acquired


@pytest.mark.parametrize("has_kspace", [True, False])
def test_kspace_stands_first_and_errors_under_their_images(has_kspace):
    example = dataclasses.replace(picture("a", 0.5), masked_kspace=np.ones((9, 3), np.float32) if has_kspace else None)
    shown = shared_pictures(dataclasses.replace(example, images={ZERO_FILLED: example.target, "VarNet": example.target}))
    titles = [each["title"] for each in shown["pictures"]]
    errors = [f"Error × {ERROR_GAIN}"] * 2
    if has_kspace:
        assert titles == ["Masked k-space", "Zero-filled", "VarNet", "Target", "", *errors]
        assert (shown["columns"], shown["pictures"][4]["uri"]) == (4, "")
        png = base64.b64decode(shown["pictures"][0]["uri"].partition(",")[2])
        assert Image.open(io.BytesIO(png)).size == (3, 9)
    else:
        assert titles == ["Zero-filled", "VarNet", "Target", *errors]
        assert shown["columns"] == 3
