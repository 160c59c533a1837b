"""Readouts of a raw scan as their headers describe them, and which of them make up its slices.

ISMRMRD and twix files hold one record per readout, in the order of acquisition: lines of the image, lines for calibration, and others.
What is chosen, joined and left out here is told; readouts that cannot be told apart are refused. The phases of a heart's cycle are the
frames of a slice; of echoes, repetitions and sets the first is taken.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import ScanError

__all__ = ["READOUT", "Purpose", "Selected", "select_readouts"]


class Purpose(IntEnum):
    """What a readout was measured for."""

    IMAGE = 0
    CALIBRATION = 1
    PHASE_CORRECTION = 2
    NOISE = 3
    OTHER = 4


# One readout: where its samples are (ref), its counters, and how its samples lie. Center values are as the file claims.
READOUT = np.dtype(
    [
        *(("ref", "i8"), ("purpose", "u1"), ("is_reversed", "?"), ("num_samples", "i4"), ("num_coils", "i4"), ("center_sample", "i4")),
        *(("slice", "i4"), ("step", "i4"), ("partition", "i4"), ("average", "i4"), ("segment", "i4")),
        *(("contrast", "i4"), ("phase", "i4"), ("repetition", "i4"), ("set", "i4"), ("position", "f8", (3,))),
    ]
)
_SERIES = ("contrast", "repetition", "set")
_NAMES = {"contrast": ("echo", "echoes"), "repetition": ("repetition", "repetitions"), "set": ("set", "sets")}
_SAME_PLACE_MM = 1e-3
_APART = ("separate", "external")

Readouts = NDArray[Any]


class Selected(NamedTuple):
    """The readouts of the slices.

    Attributes:
        lines: Of dtype ``READOUT``; ``slice`` counts from 0 in order of position, ``phase`` from 0 in order of its counter.
        num_slices: How many slices.
        num_frames: How many phases of each, None where there is one.
        findings: What was taken, merged and left out.
        separate: Calibration lines that are no part of the k-space.
    """

    lines: Readouts
    num_slices: int
    num_frames: int | None
    findings: list[str]
    separate: Readouts


def select_readouts(name: str, readouts: Readouts, *, calibration: str, echo_train: int, normal: Sequence[float]) -> Selected:
    """Choose the readouts of the first series of every slice, all phases of it, with their embedded calibration lines.

    Args:
        name: File name, for messages.
        readouts: All of the file, dtype ``READOUT``.
        calibration: ``embedded``; ``separate`` or ``external``, whose lines stay apart; any other word lets the readouts tell.
        echo_train: Readouts after one excitation.
        normal: Slice normal, three components; zeros where it is unknown.

    Raises:
        ScanError: There is no image, it is an echo-planar scan, or readouts cannot be told apart.
    """
    image = readouts[readouts["purpose"] == Purpose.IMAGE]
    if not len(image):
        raise ScanError(f"{name}: no imaging readouts", "at least one slice is needed", "Check that this is the imaging scan.")
    findings = _others(readouts)
    image, series = _first_series(image)
    _refuse_echo_planar(name, readouts, image, echo_train)
    calibrating, _ = _first_series(readouts[readouts["purpose"] == Purpose.CALIBRATION])
    calibrating = calibrating[np.isin(calibrating["slice"], image["slice"])]
    image, calibrating, num_frames, phases = _as_frames(image, calibrating)
    added, separate, told = _split_calibration(image, calibrating, calibration)
    findings += series + phases + told
    lines = np.concatenate([image, added])
    _refuse_indistinguishable(name, lines)
    averages = int(lines["average"].max() - lines["average"].min()) + 1
    if averages > 1:
        findings.append(f"merged {averages} averages into their mean")
    lines, num_slices, ordered = _in_order_of_place(lines, normal)
    return Selected(lines, num_slices, num_frames, findings + ordered, separate)


def _refuse_echo_planar(name: str, readouts: Readouts, image: Readouts, echo_train: int) -> None:
    runs_both_ways = image["is_reversed"].any() and not image["is_reversed"].all()
    if runs_both_ways and (echo_train > 1 or (readouts["purpose"] == Purpose.PHASE_CORRECTION).any()):
        raise ScanError(
            f"{name}: readouts that run to and fro, {'in echo trains' if echo_train > 1 else 'with phase-correction lines'}",
            "an echo-planar scan needs phase correction before its lines make an image",
            "Leave this scan out, or export it corrected and sorted.",
        )


def _others(readouts: Readouts) -> list[str]:
    words = {Purpose.NOISE: "noise", Purpose.PHASE_CORRECTION: "phase-correction", Purpose.OTHER: "navigator, feedback or dummy"}
    counts = {word: int((readouts["purpose"] == purpose).sum()) for purpose, word in words.items()}
    told = [f"{count} {word}" for word, count in counts.items() if count]
    return [f"left out {', '.join(told)} readouts"] if told else []


def _first_series(readouts: Readouts) -> tuple[Readouts, list[str]]:
    """Keep of every slice its first echo, repetition and set, whatever number the counters begin at."""
    kept, told = readouts, []
    for counter in _SERIES:
        if not len(kept):
            break
        slices, of_slice = np.unique(kept["slice"], return_inverse=True)
        first = np.full(len(slices), np.iinfo(np.int32).max)
        np.minimum.at(first, of_slice, kept[counter])
        counts = [len(np.unique(kept[counter][of_slice == index])) for index in range(len(slices))]
        if max(counts) > 1:
            one, many = _NAMES[counter]
            varies = "" if min(counts) == max(counts) else f" (of some slices {min(counts)})"
            told.append(f"took {one} 1 of {max(counts)}{varies}, the other {many} are left out")
        kept = kept[kept[counter] == first[of_slice]]
    return kept, told


def _as_frames(image: Readouts, calibrating: Readouts) -> tuple[Readouts, Readouts, int | None, list[str]]:
    """Number the phases of every slice from 0, whatever their counters begin at; of slices that differ, as many as all have.

    Returns:
        The image, the calibration, how many frames (None for one), and what is told of it. Calibration lines that were measured in
        other phases than the image have phase -1: they are of no frame.
    """
    pairs, of_pair = np.unique(image[["slice", "phase"]], return_inverse=True)
    _, begin, counts = np.unique(pairs["slice"], return_index=True, return_counts=True)
    ranks = np.arange(len(pairs)) - np.repeat(begin, counts)
    fewest, most = int(counts.min()), int(counts.max())
    image, calibrating = image.copy(), calibrating.copy()
    image["phase"] = ranks[of_pair]
    if fewest > 1:
        rank_of = dict(zip(pairs.tolist(), ranks.tolist(), strict=True))
        calibrating["phase"] = [rank_of.get(pair, -1) for pair in calibrating[["slice", "phase"]].tolist()]
    else:  # One time: in which phase its calibration was measured says nothing.
        calibrating["phase"] -= _first_phases(calibrating)
    image, calibrating = image[image["phase"] < fewest], calibrating[calibrating["phase"] < fewest]
    return image, calibrating, fewest if fewest > 1 else None, _told_of_phases(pairs, fewest, most)


def _told_of_phases(pairs: Readouts, fewest: int, most: int) -> list[str]:
    told = []
    if fewest < most:
        told.append(
            f"took phase 1 of {most} (of some slices 1), the other phases are left out"
            if fewest == 1
            else f"took the first {fewest} of {most} phases: some slices have no more"
        )
    if fewest > 1 and (np.diff(pairs["phase"])[np.diff(pairs["slice"]) == 0] > 1).any():
        told.append("phases have gaps in their counter: they are taken in its order")
    return told


def _first_phases(readouts: Readouts) -> NDArray[np.int32]:
    """Return of each readout the first phase of its slice."""
    slices, of_slice = np.unique(readouts["slice"], return_inverse=True)
    first = np.full(len(slices), np.iinfo(np.int32).max, np.int32)
    np.minimum.at(first, of_slice, readouts["phase"])
    return np.asarray(first[of_slice])


def _split_calibration(image: Readouts, calibrating: Readouts, mode: str) -> tuple[Readouts, Readouts, list[str]]:
    """Return calibration lines that belong to the k-space, those that stay apart, and what is told of them."""
    nothing = calibrating[:0]
    if not len(calibrating):
        return nothing, nothing, []
    keys = ("slice", "phase", "partition", "step")
    taken = {tuple(row) for row in image[list(keys)].tolist()}
    is_new = np.array([tuple(row) not in taken for row in calibrating[list(keys)].tolist()])
    fits = np.isin(calibrating["num_samples"], image["num_samples"]) & np.isin(calibrating["num_coils"], image["num_coils"])
    per_slice = len(np.unique(calibrating["step"]))
    within = (calibrating["step"] >= image["step"].min()) & (calibrating["step"] <= image["step"].max())
    is_of_frames = set(calibrating["phase"].tolist()) == set(image["phase"].tolist())
    is_embedded = mode == "embedded" or (mode not in _APART and bool((is_new & within & fits).all()))
    if not (is_embedded and fits.all() and is_of_frames):
        other = "calibration of other samples or coils" if not fits.all() else "calibration that not every phase has"
        why = other if is_embedded else f"{mode if mode in _APART else 'separate'} calibration"
        return nothing, calibrating, [f"left out {per_slice} lines of {why}"]
    added = calibrating[is_new]
    told = [f"{len(np.unique(added['step']))} calibration lines belong to the k-space"] if len(added) else []
    if not is_new.all():
        told.append(f"left out {len(np.unique(calibrating['step'][~is_new]))} calibration lines that the image has as well")
    return added, nothing, told


def _refuse_indistinguishable(name: str, lines: Readouts) -> None:
    keys = lines[["slice", "phase", "partition", "step", "average"]]
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    if counts.max() > 1:
        line = lines[first[int(np.argmax(counts))]]
        raise ScanError(
            f"{name}: {counts.max()} readouts of slice {line['slice']}, line {line['step']}",
            "share all counters and are no averages: echoes or repetitions that nothing tells apart cancel each other when they are added",
            "Export it with its counters (echo, repetition, set) filled in.",
        )


def _in_order_of_place(lines: Readouts, normal: Sequence[float]) -> tuple[Readouts, int, list[str]]:
    """Number slices from 0 in order of their position, in order of their counter where that runs along them or positions do not tell."""
    counters, first = np.unique(lines["slice"], return_index=True)
    places = lines["position"][first]
    direction = np.asarray(normal, np.float64)
    if not direction.any():
        direction = np.ptp(places, axis=0)
    heights = places @ direction / max(float(np.linalg.norm(direction)), 1e-12)
    order, told = np.arange(len(counters)), []
    if len(counters) > 1 and np.isfinite(heights).all() and np.ptp(heights) > _SAME_PLACE_MM:
        by_place = np.argsort(heights, kind="stable")
        if (np.diff(heights[by_place]) > _SAME_PLACE_MM).all():
            is_in_order = (np.diff(by_place) == 1).all() or (np.diff(by_place) == -1).all()
            if not is_in_order:
                order = by_place
                told = ["slices were put in order of their position"]
        else:
            told = ["several slices have one position: they stay in the order of their counter"]
    rank = np.empty(len(counters), int)
    rank[order] = np.arange(len(counters))
    lines = lines.copy()
    lines["slice"] = rank[np.searchsorted(counters, lines["slice"])]
    return lines, len(counters), told
