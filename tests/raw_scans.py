"""Small raw scans of one matrix, for what readers make of their readouts."""

import numpy as np

from tests.scans import header_xml, write_ismrmrd

HEIGHT, WIDTH = 64, 48
PROTOCOL = '\nsKSpace.lBaseResolution = 32\nsKSpace.lPhaseEncodingLines = 48\n<ParamString."tProtocolName"> { "t2 knee" }\n'


def flag(number: int) -> int:
    return 1 << (number - 1)


def header(encoding: str = "", **values) -> bytes:
    return header_xml(HEIGHT, WIDTH, **values).replace(b"</encoding>", encoding.encode() + b"</encoding>")


def write(tmp_path, readouts, encoding: str = "", **values):
    return write_ismrmrd(tmp_path / "raw.h5", header(encoding, **values), readouts)


def with_values(readouts, **values):
    return [(samples, {**own, **values}) for samples, own in readouts]


def reversed_readout(line: np.ndarray, center: int) -> np.ndarray:
    """Return what a readout that runs backwards stores, so that its sample ``center`` is the zero frequency."""
    size = line.shape[1]
    places = size // 2 - (np.arange(size) - center)
    there = (places >= 0) & (places < size)
    stored = np.zeros_like(line)
    stored[:, there] = line[:, places[there]]
    return stored
