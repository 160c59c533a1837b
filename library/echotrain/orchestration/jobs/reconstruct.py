"""Reconstruct undersampled scanner files with a trained model: fastMRI-layout HDF5 and a picture of each."""

import dataclasses
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from echotrain.data.catalog.identity import SampleId
from echotrain.data.formats import Deidentifier, ExaminedVolume, measured_range, open_volume
from echotrain.data.formats.deidentify import SALT_VARIABLE
from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.sources import ScanSource, find_sources, local_copy, place_suffixes, scans_root
from echotrain.data.formats.write import write_fastmri
from echotrain.data.formats.xml_header import header_xml
from echotrain.data.preparing.convert import reason_of
from echotrain.data.preparing.curate import acquired_lines
from echotrain.data.samples.kspace_lines import LinesBatch, as_lines, compressed
from echotrain.data.samples.measured import MeasuredData
from echotrain.data.samples.slots import SlotPool
from echotrain.errors import ConfigError, PayloadError, ScanError
from echotrain.evaluation.figures import contact_sheet
from echotrain.log import track
from echotrain.orchestration.jobs.inference import InferenceConfig, WorkerSetup, actor_resources
from echotrain.orchestration.jobs.salting import naming_salt
from echotrain.orchestration.runtime.cluster import connect
from echotrain.orchestration.runtime.mapping import Result, map_items
from echotrain.physics.masks import LineSampling, count_low_frequencies, line_mask
from echotrain.storage.open import local_path, open_store

__all__ = ["Reconstruction", "reconstruct"]


# Below this many central lines coil maps are guesses; masks of 8x keep 13 and more.
_FEW_LINES = 6


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What became of one file.

    Attributes:
        source: The file, for this machine's console only: its path may name the patient.
        name: What may be told everywhere: the volume's id, or a pseudonym of the source.
        output: URI of the written HDF5; "" where there is none.
        num_slices: Slices reconstructed, each frame of them counted.
        acceleration: Lines of the matrix over lines acquired.
        error: Why the file was left out, free of its name; "" where it was not.
        findings: What of the file was taken, merged, corrected or taken on trust.
    """

    source: str
    name: str
    output: str = ""
    num_slices: int = 0
    acceleration: float = 0.0
    error: str = ""
    findings: list[str] = field(default_factory=list)


def reconstruct(
    config: InferenceConfig,
    source: str,
    to: str,
    *,
    undersample: bool = False,
    overwrite: bool = False,
    safe_names: Sequence[str] = (),
) -> Iterator[Reconstruction]:
    """Reconstruct every scan below ``source``, in any order; a file that cannot be used is told about and left out.

    Each volume becomes ``<to>/<volume>.h5`` with ``reconstruction`` float32 (slices, height, width) and a de-identified
    ``ismrmrd_header``, and ``<to>/<volume>.png``. For a file in a sub-folder of the source a pseudonym of its place follows the
    name, so that ``patient1/t1.h5`` and ``patient2/t1.h5`` stay apart. A volume is called as ``prepare`` calls it: a file's name stays
    where a public data set or ``safe_names`` vouch for it.

    Args:
        config: The model and its workers.
        source: Folder, S3 prefix or single file.
        to: Folder or S3 prefix.
        undersample: Undersample fully sampled files by the run's own mask; without it they are left out.
        overwrite: Reconstruct again what is in ``to`` already; without it such a scan is left out.
        safe_names: Regular expressions of file names, without their endings, that name nobody.

    Raises:
        ConfigError: There are no scans, they lie where the reconstructions would, an override does not fit, or pseudonyms are needed
            on a cluster that has no key for them.
        CheckpointError: The run has no usable checkpoint.
        ResourceError: The cluster is too small.
        StorageError: The destination cannot be written.
    """
    config, _ = config.resolved()
    sources = find_sources(source)
    target = open_store(to).uri
    _check_place(source, sources, target)
    deidentifier = _deidentifier(source, sources, safe_names)
    # Asked once, before anything is written: a worker that is tried again must not take its own output for another's.
    there = frozenset() if overwrite else frozenset(info.key for info in open_store(target).list())
    connect()
    suffixes = place_suffixes(source, sources, deidentifier)
    items = [{**dataclasses.asdict(found), "suffix": suffix} for found, suffix in zip(sources, suffixes, strict=True)]
    told = (WorkerSetup(method=config), config, target, undersample, there, deidentifier)
    results = map_items(items, _VolumeReconstructor, *told, **actor_resources(config, len(items)))
    for result in track(results, "Reconstructing", total=len(items)):
        yield Reconstruction(**result.values)


class VolumeSampling(NamedTuple):
    """Which lines were acquired of every slice of a volume; scanners move the grid from slice to slice.

    Attributes:
        slices: Sampling of each slice, or of each frame of it (``Volume``), in order.
    """

    slices: tuple[LineSampling, ...]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Lines that any slice has, bool (width,)."""
        return np.asarray(np.logical_or.reduce([sampling.mask for sampling in self.slices]))

    @property
    def num_low_frequencies(self) -> int:
        """Central lines without a gap, of the slice that has fewest; empty slices do not count."""
        return min((sampling.num_low_frequencies for sampling in self.slices if sampling.mask.any()), default=0)

    @property
    def acceleration(self) -> float:
        """Lines of the matrix over lines acquired, on the mean over slices that hold any."""
        return float(np.mean([_acceleration(sampling.mask) for sampling in self.slices if sampling.mask.any()]))


def acquired_of(volume: ExaminedVolume, index: int) -> NDArray[np.bool_]:
    """Return the lines of one slice that were acquired, bool (width,): those that hold anything, and that its file does not disown.

    A mask that is narrower than what the k-space holds is another one's, or was meant to be applied: then the k-space decides.
    Partial-Fourier padding is never acquired, whatever a mask says, as in fastMRI.
    """
    lines, claimed = acquired_lines(volume.read_slice(index)), volume.mask(index)
    if claimed is not None and not lines[~claimed].any():
        lines = lines & claimed
    if lines.any():
        left, right = measured_range(lines, (volume.header.padding_left, volume.header.padding_right))
        lines[:left], lines[right:] = False, False
    return lines


def _acceleration(lines: NDArray[np.bool_]) -> float:
    return len(lines) / max(int(lines.sum()), 1)


class _VolumeReconstructor:
    """Reads, reconstructs and writes whole files; one lives in each worker."""

    def __init__(
        self,
        setup: WorkerSetup,
        config: InferenceConfig,
        to: str,
        undersample: bool,
        there: frozenset[str],
        deidentifier: Deidentifier,
    ) -> None:
        setup.prepare()
        trained = config.load()
        self._experiment, self._trained = trained.experiment, trained
        self._store = open_store(to)
        self._undersample, self._there = undersample, there
        self._deidentifier = deidentifier

    def __call__(self, item: dict[str, Any]) -> Result:
        source, suffix = ScanSource(uri=item["uri"], size=item["size"], version=item["version"]), item["suffix"]
        name = self._deidentifier.pseudonym("unreadable", source.uri)
        try:
            # A file without a header is taken by the lines that it holds, as every other.
            with local_copy(source) as path, open_volume(path, deidentifier=self._deidentifier, assume_full=True) as volume:
                name = f"{volume.header.volume}{suffix}"
                self._check(volume, name, source)
                sampling = self._sampling(volume, source)
                images = np.stack([self._reconstruct(volume, index, sampling) for index in range(volume.header.num_images)])
                output = self._write(name, volume, images)
        except ScanError as error:
            return Result(dataclasses.asdict(Reconstruction(source=source.uri, name=name, error=_told(error, source.name))))
        done = Reconstruction(
            source=source.uri,
            name=name,
            output=output,
            num_slices=len(images),
            acceleration=sampling.acceleration,
            findings=[*volume.findings, *_without_calibration(sampling, volume)],
        )
        return Result(dataclasses.asdict(done))

    def _check(self, volume: ExaminedVolume, name: str, source: ScanSource) -> None:
        """Refuse a volume that cannot be reconstructed slice by slice, or that would overwrite something."""
        if volume.num_partitions > 1:
            raise ScanError(
                source.name, f"is a 3D encode of {volume.num_partitions} partitions", "Only slices of a 2D encode are reconstructed."
            )
        if f"{name}.h5" in self._there:
            raise ScanError(f"{name}.h5", "is there already", "Give --overwrite to reconstruct it again.")

    def _sampling(self, volume: ExaminedVolume, source: ScanSource) -> VolumeSampling:
        """Return what each slice's lines show and its file says was acquired, or the run's mask where that was asked for."""
        header = volume.header
        lines = [acquired_of(volume, index) for index in range(header.num_images)]
        held = [of_slice for of_slice in lines if of_slice.any()]
        if not held:
            raise ScanError(source.name, "holds no measured line: its k-space is zero", "Export it from the scanner again.")
        if all(of_slice[header.padding_left : header.padding_right].all() for of_slice in held):
            return self._undersampled(header, source)
        if not all(of_slice[header.width // 2] for of_slice in held):
            apart = volume.calibration
            where = (
                "its calibration lines hold it, but were measured apart from the image" if apart and apart.holds_center else "nothing does"
            )
            raise ScanError(
                source.name,
                f"lacks the centre line of k-space, which coil maps are made from; {where}",
                "Acquire a full centre, or embed the calibration in the image's k-space.",
            )
        return VolumeSampling(tuple(LineSampling(lines, count_low_frequencies(lines), _acceleration(lines), None) for lines in lines))

    def _undersampled(self, header: VolumeHeader, source: ScanSource) -> VolumeSampling:
        """Return the run's mask for a fully sampled volume, the same for every slice."""
        if not self._undersample:
            raise ScanError(source.name, "is fully sampled: nothing to reconstruct", "Give --undersample to undersample it first.")
        sampling = line_mask(
            as_lines(self._experiment.data).mask,
            header.width,
            seed=self._experiment.seed,
            dataset=header.dataset,
            volume=header.volume,
            epoch=None,
            padding_left=header.padding_left,
            padding_right=header.padding_right,
        )
        return VolumeSampling((sampling,) * header.num_images)

    @torch.inference_mode()
    def _reconstruct(self, volume: ExaminedVolume, index: int, sampling: VolumeSampling) -> NDArray[np.float32]:
        kspace = volume.read_slice(index)
        if not kspace.any():
            return np.zeros((volume.header.recon_height, volume.header.recon_width), np.float32)
        if not np.isfinite(kspace).all():
            raise ScanError(f"{volume.header.volume}[{index}]", "has k-space that is not finite", "Export the scan again.")
        batch = self._compressed(_batch(volume.header, index, kspace, sampling.slices[index]))
        image: NDArray[np.float32] = self._trained.reconstruct(batch.to(self._trained.device))[0].cpu().numpy()
        if not np.isfinite(image).all():
            limit = "came out with pixels that are not finite"
            raise ScanError(f"{volume.header.volume}[{index}]", limit, "Look at this scan's centre lines, or use another checkpoint.")
        return image

    def _compressed(self, batch: LinesBatch) -> LinesBatch:
        """Return a slice with the coils that the network was trained on: virtual ones, where those were."""
        data = self._experiment.data
        assert isinstance(data, MeasuredData), "its task makes images of k-space"
        if not data.coils:
            return batch
        try:
            return compressed(batch, data.coils, SlotPool())
        except (ConfigError, PayloadError) as error:
            raise ScanError(error.value, error.limit, error.remedy) from error

    def _write(self, name: str, volume: ExaminedVolume, images: NDArray[np.float32]) -> str:
        with tempfile.TemporaryDirectory(prefix="echotrain-reconstruction-") as scratch:
            path = Path(scratch) / f"{name}.h5"
            header = header_xml(volume.header, protocol="echotrain reconstruction")
            # With the axes of the scan's own file, so that it lies beside it and a challenge takes it.
            stored = _frames_first(volume.header, images.swapaxes(-1, -2) if volume.is_phase_first else images)
            write_fastmri(path, header=header, reconstruction=stored)
            # The picture first: where the HDF5 file is, everything is.
            self._store.write(f"{name}.png", contact_sheet(images))
            self._store.upload(path, path.name)
        return f"{self._store.uri}/{path.name}"


def _frames_first(header: VolumeHeader, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return images as challenges want them: (frames, slices, …) where there are frames, else (slices, …)."""
    if header.num_frames is None:
        return images
    return images.reshape(header.num_slices, header.num_frames, *images.shape[1:]).swapaxes(0, 1)


def _without_calibration(sampling: VolumeSampling, volume: ExaminedVolume) -> list[str]:
    """Tell where coil maps have next to nothing to be made from."""
    few = sampling.num_low_frequencies
    lines = f"coil maps are made from {few} central line{'s' if few > 1 else ''}"
    why = "no calibration lines" if volume.calibration is None else "no calibration lines within the image"
    return [f"{why}: {lines}"] if few < _FEW_LINES else []


def _deidentifier(source: str, sources: Sequence[ScanSource], safe_names: Sequence[str]) -> Deidentifier:
    """Return what names the reconstructions: with a key that is the same the next time, or with any where no name depends on it."""
    salt = naming_salt()
    deidentifier = Deidentifier(salt or secrets.token_hex(16), safe_names=safe_names)
    if salt:
        return deidentifier
    stems = [PurePosixPath(scan.uri).stem for scan in sources]
    num_hidden = sum(not deidentifier.keeps_name(stem) for stem in stems)
    if num_hidden or any(place_suffixes(source, sources, deidentifier)):
        raise ConfigError(
            f"no {SALT_VARIABLE}",
            f"{num_hidden or 'some'} of {len(sources)} files need pseudonyms in their names, which on a cluster are made with a secret key",
            f"Set {SALT_VARIABLE} as for prepare, or name what is safe: --safe-names.",
        )
    return deidentifier


def _told(error: ScanError, name: str) -> str:
    return f"{reason_of(error, name)}. {error.remedy}"


def _check_place(source: str, sources: Sequence[ScanSource], to: str) -> None:
    """Refuse a destination among the scans: one of them could be overwritten, and a second run would find the reconstructions."""
    path, target = local_path(source), _resolved(to)
    # Links among them may lead to scans elsewhere.
    folders = {_resolved(folder) for folder in {scan.uri.rpartition("/")[0] for scan in sources}}
    is_file = path.is_file() if path is not None else source == sources[0].uri
    root = scans_root(source) if path is None else f"{_resolved(source).rstrip('/')}/"
    if target in folders or (not is_file and f"{target}/".startswith(root)):
        raise ConfigError(f"--to {to}", f"lies among the scans of {source}", "Choose another place for the reconstructions.")


def _resolved(uri: str) -> str:
    """Return a path without links, so that two names of one place are the same; any other URI as it is."""
    path = local_path(uri)
    return uri if path is None else str(path.resolve())


def _batch(header: VolumeHeader, index: int, kspace: NDArray[np.complex64], sampling: LineSampling) -> LinesBatch:
    """Return one slice as a batch whose target is only there for its size."""
    return LinesBatch(
        kspace=torch.from_numpy(kspace)[None],
        mask=torch.from_numpy(sampling.mask)[None, None, None, :],
        num_low_frequencies=torch.tensor([sampling.num_low_frequencies]),
        coil_mask=torch.ones(1, len(kspace), dtype=torch.bool),
        target=torch.zeros(1, header.recon_height, header.recon_width),
        max_value=torch.ones(1),
        weight=torch.ones(1),
        ids=(SampleId(header.dataset, header.volume, *header.place(index)),),
    )
