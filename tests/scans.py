"""Small scanner files for tests: good ones, and the parts that bad ones are made of."""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from echotrain.data.formats import Volume
from echotrain.data.formats.target import rss_target
from echotrain.data.preparing.curate import CurationConfig, Rejection, slice_defect, volume_defect
from echotrain.physics.fft import fft2c

NAMESPACE = "http://www.ismrm.org/ISMRMRD"


def header_xml(
    height: int,
    width: int,
    *,
    recon: tuple[int, int] | None = None,
    center: int | None = None,
    maximum: int | None = None,
    depth: int = 1,
    protocol: str = "a protocol",
    extra: str = "",
    trajectory: str = "cartesian",
) -> bytes:
    """Return an ISMRMRD header; ``extra`` goes in front of the encoding."""
    recon = recon or (height, width)
    limits = f"""<kspace_encoding_step_1><minimum>0</minimum><maximum>{width - 1 if maximum is None else maximum}</maximum>
      <center>{width // 2 if center is None else center}</center></kspace_encoding_step_1>
      <kspace_encoding_step_2><minimum>0</minimum><maximum>{depth - 1}</maximum><center>{depth // 2}</center></kspace_encoding_step_2>"""
    return f"""<?xml version="1.0"?><ismrmrdHeader xmlns="{NAMESPACE}">{extra}
    <measurementInformation><protocolName>{protocol}</protocolName></measurementInformation>
    <acquisitionSystemInformation><systemVendor>SIEMENS</systemVendor><systemFieldStrength_T>1.5</systemFieldStrength_T>
    </acquisitionSystemInformation><encoding>
    <encodedSpace><matrixSize><x>{height}</x><y>{width}</y><z>{depth}</z></matrixSize>
      <fieldOfView_mm><x>{2 * height}</x><y>{2 * width}</y><z>4</z></fieldOfView_mm></encodedSpace>
    <reconSpace><matrixSize><x>{recon[0]}</x><y>{recon[1]}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>{2 * recon[0]}</x><y>{2 * recon[1]}</y><z>4</z></fieldOfView_mm></reconSpace>
    <encodingLimits>{limits}</encodingLimits><trajectory>{trajectory}</trajectory></encoding></ismrmrdHeader>""".encode()


def random_kspace(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return complex64 noise."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def object_kspace(shape: tuple[int, ...], seed: int = 0, noise: float = 1e-3) -> np.ndarray:
    """Return complex64 k-space (slices, coils, height, width) of an asymmetric object under smooth coils, its centre at ``n // 2``.

    Slices differ in size and place of what they show, so that none can stand for another.
    """
    slices, coils, height, width = shape
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    kspace = np.empty(shape, np.complex64)
    for index in range(slices):
        z = index / max(slices, 1)
        image = ((y / 0.75) ** 2 + (x / 0.6) ** 2 < 1) * 1.0
        image += 0.8 * (((y + 0.3 - 0.2 * z) / 0.2) ** 2 + ((x - 0.2) / (0.12 + 0.1 * z)) ** 2 < 1)
        image -= 0.5 * ((abs(y - 0.35) < 0.08) & (abs(x + 0.15) < 0.1 + 0.2 * z))
        angles = np.linspace(0, 2 * np.pi, coils, endpoint=False)
        maps = np.stack([np.exp(-((y - np.cos(a)) ** 2 + (x - np.sin(a)) ** 2) / 2 + 1j * (a + 0.4 * y)) for a in angles])
        kspace[index] = fft2c(torch.from_numpy((maps * image).astype(np.complex64))).numpy()
    scale = noise * np.abs(kspace).max() * 0.1
    return kspace + (scale * random_kspace(shape, seed=int(rng.integers(1 << 30)))).astype(np.complex64)


def write_scan(
    path: Path,
    kspace: np.ndarray | None = None,
    *,
    header: bytes | None = None,
    target: np.ndarray | str | None = "rss",
    attributes: Mapping[str, Any] | None = None,
    **dataset_options: Any,
) -> Path:
    """Write a fastMRI-layout file; any part can be replaced by a bad one."""
    kspace = random_kspace((2, 3, 32, 24)) if kspace is None else kspace
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = header_xml(*kspace.shape[-2:]) if header is None else header
        file.create_dataset("kspace", data=kspace, **dataset_options)
        if isinstance(target, str):
            target = np.stack([rss_target(coils, kspace.shape[-2:]) for coils in kspace])
        if target is not None:
            file["reconstruction_rss"] = target
        file.attrs.update({"patient_id": path.stem[::-1], **(attributes or {})})
    return path


def curate(volume: Volume, config: CurationConfig | None = None) -> list[Rejection]:
    """Return everything of a volume that prepare would leave out, and why; reads all of its k-space."""
    defect = volume_defect(volume, config or CurationConfig())
    if defect is not None:
        return [Rejection(None, defect)]
    header = volume.header
    found = ((header.place(index), slice_defect(volume.read_slice(index), header)) for index in range(header.num_images))
    return [Rejection(slice_, defect, frame) for (slice_, frame), defect in found if defect is not None]


HEAD = np.dtype(
    [
        *(("version", "<u2"), ("flags", "<u8"), ("measurement_uid", "<u4"), ("scan_counter", "<u4"), ("acquisition_time_stamp", "<u4")),
        *(("physiology_time_stamp", "<u4", (3,)), ("number_of_samples", "<u2"), ("available_channels", "<u2"), ("active_channels", "<u2")),
        *(("channel_mask", "<u8", (16,)), ("discard_pre", "<u2"), ("discard_post", "<u2"), ("center_sample", "<u2")),
        *(("encoding_space_ref", "<u2"), ("trajectory_dimensions", "<u2"), ("sample_time_us", "<f4"), ("position", "<f4", (3,))),
        *(("read_dir", "<f4", (3,)), ("phase_dir", "<f4", (3,)), ("slice_dir", "<f4", (3,)), ("patient_table_position", "<f4", (3,))),
        (
            "idx",
            [
                *(("kspace_encode_step_1", "<u2"), ("kspace_encode_step_2", "<u2"), ("average", "<u2"), ("slice", "<u2")),
                *(("contrast", "<u2"), ("phase", "<u2"), ("repetition", "<u2"), ("set", "<u2"), ("segment", "<u2"), ("user", "<u2", (8,))),
            ],
        ),
        *(("user_int", "<i4", (8,)), ("user_float", "<f4", (8,))),
    ]
)


def write_ismrmrd(path: Path, header: bytes, readouts: Sequence[tuple[np.ndarray, Mapping[str, int]]]) -> Path:
    """Write a raw ISMRMRD file.

    Args:
        path: Destination.
        header: XML.
        readouts: Samples, complex (coils, samples), and fields of the head or of its ``idx``.
    """
    row = np.dtype([("head", HEAD), ("traj", h5py.vlen_dtype(np.float32)), ("data", h5py.vlen_dtype(np.float32))])
    rows = np.empty(len(readouts), dtype=row)
    for index, (samples, values) in enumerate(readouts):
        head = np.zeros((), dtype=HEAD)
        head["number_of_samples"], head["active_channels"] = samples.shape[1], samples.shape[0]
        head["center_sample"], head["slice_dir"] = samples.shape[1] // 2, (0, 0.1, 0.9)
        for key, value in values.items():
            if key in HEAD.names:
                head[key] = value
            else:
                head["idx"][key] = value
        rows[index]["head"] = head
        rows[index]["traj"] = np.zeros(0, np.float32)
        rows[index]["data"] = np.ascontiguousarray(samples, np.complex64).view(np.float32).ravel()
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[header.decode()], dtype=h5py.string_dtype())
        group.create_dataset("data", data=rows, chunks=(1,), maxshape=(None,))
    return path


def lines_of(kspace: np.ndarray, slice_: int = 0) -> list[tuple[np.ndarray, dict[str, int]]]:
    """Return the readouts of one slice, (coils, height, width) k-space, in order."""
    return [(kspace[:, :, column], {"kspace_encode_step_1": column, "slice": slice_}) for column in range(kspace.shape[-1])]


def write_twix(path: Path, protocol: str, readouts: Sequence[tuple[np.ndarray, Mapping[str, int]]], *, has_end: bool = True) -> Path:
    """Write a twix file of version VB: protocol text, then one header and samples per coil and readout."""
    from twixtools import mdh_def

    def mdh(samples: int, coils: int, flags: Sequence[str], values: Mapping[str, int]) -> mdh_def.VB17_header:
        header = mdh_def.VB17_header()
        header.SamplesInScan, header.UsedChannels, header.CenterCol = samples, coils, samples // 2
        header.FlagsAndDMALength = ctypes.sizeof(header) if "ACQEND" in flags else coils * (ctypes.sizeof(header) + 8 * samples)
        header.EvalInfoMask = sum(1 << mdh_def.mask_dict[flag] for flag in flags)
        for key, value in values.items():
            setattr(header if hasattr(header, key) else header.Counter, key, value)
        return header

    text = protocol.encode("latin-1").ljust(max(10_240, len(protocol)) - 8)
    parts = [np.array([len(text) + 8, 1], "<u4").tobytes(), text]
    for samples, values in readouts:
        flags = ["ONLINE", *values.get("flags", ())]
        header = mdh(samples.shape[1], samples.shape[0], flags, {key: value for key, value in values.items() if key != "flags"})
        for coil in samples:
            parts += [bytes(header), np.ascontiguousarray(coil, "<c8").tobytes()]
    if has_end:
        parts.append(bytes(mdh(0, 0, ["ACQEND"], {})))
    path.write_bytes(b"".join(parts))
    return path


def write_twix_vd(
    path: Path, measurements: Sequence[tuple[str, Sequence[tuple[np.ndarray, Mapping[str, Any]]]]], *, patient_name: str = ""
) -> Path:
    """Write a twix file of version VD or later: a table of measurements, then each as protocol text and readouts of all coils."""
    from twixtools import mdh_def
    from twixtools.hdr_def import MrParcRaidFileEntry

    table = np.zeros(len(measurements), MrParcRaidFileEntry)
    begin = 8 + table.nbytes
    parts: list[bytes] = []
    for number, (protocol, readouts) in enumerate(measurements):
        text = protocol.encode("latin-1").ljust(10_232)
        body = [np.array([len(text) + 8, 1], "<u4").tobytes(), text]
        for samples, values in [*readouts, (np.zeros((0, 0), np.complex64), {"flags": ("ACQEND",)})]:
            header = mdh_def.Scan_header()
            header.SamplesInScan, header.UsedChannels, header.CenterCol = samples.shape[1], samples.shape[0], samples.shape[1] // 2
            header.FlagsAndDMALength = ctypes.sizeof(header) + len(samples) * (ctypes.sizeof(mdh_def.Channel_header) + 8 * samples.shape[1])
            header.EvalInfoMask = sum(1 << mdh_def.mask_dict[flag] for flag in values.get("flags", ("ONLINE",)))
            for key, value in values.items():
                if key != "flags":
                    setattr(header if hasattr(header, key) else header.Counter, key, value)
            body.append(bytes(header))
            for coil in samples:
                body += [bytes(mdh_def.Channel_header()), np.ascontiguousarray(coil, "<c8").tobytes()]
        content = b"".join(body)
        table[number]["patName_"] = patient_name.encode("latin-1")
        table[number]["off_"], table[number]["len_"] = begin + sum(map(len, parts)), len(content)
        parts.append(content)
    path.write_bytes(np.array([0, len(measurements)], "<u4").tobytes() + table.tobytes() + b"".join(parts))
    return path
