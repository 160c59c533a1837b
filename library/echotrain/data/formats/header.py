"""What is known about one volume, free of anything that names a person."""

from dataclasses import dataclass

from echotrain.errors import ScanError

__all__ = ["VolumeHeader"]

_FEWEST_FRAMES = 2


@dataclass(frozen=True, kw_only=True)
class VolumeHeader:
    """The typed header of one multi-coil volume, the same from every scanner format.

    Every text field is de-identified before it gets here (``data.formats.deidentify``). Unknown text is ``""``,
    an unknown number ``0``.

    Attributes:
        dataset: Name of the collection the volume belongs to.
        volume: Id of the volume, unique in its dataset.
        patient: Pseudonym of the patient; splits are made by it.
        anatomy: ``knee``, ``brain``, ``spine``, …
        contrast: ``T1``, ``T1_FS``, ``T2``, ``T2_FS``, ``PD``, ``PD_FS``, ``STIR``, …
        fat_suppressed: Whether fat was suppressed; None where the header does not say.
        orientation: ``AX``, ``SAG``, ``COR`` or ``""``.
        acquisition: The protocol name as fastMRI writes it (``CORPD_FBK``, ``AXT2``).
        field_strength: Tesla.
        sex, weight_bin_kg: Of the person, as ``data.formats.subject`` has them; None where the header does not say.
        modality: Kind of examination in the words of its data set (``cine_sax``, ``T1map``).
        num_slices, num_coils: Sizes of the k-space array (slices, coils, height, width).
        num_frames: Times that every slice was measured at; None where each was measured once.
        height, width: k-space matrix; the readout is ``height``, the phase encodes ``width``.
        recon_height, recon_width: Matrix of the image after readout oversampling is cropped.
        fov_mm: Reconstructed field of view (readout, phase, slice) in millimetres.
        padding_left, padding_right: Measured phase-encode lines are [left, right); outside is partial-Fourier zero fill.
        max_value, norm: Maximum and Frobenius norm of the target volume over all its frames (fastMRI's ``max`` and ``norm``).
        protocol_kinds: What the protocol's name says that the scan is for, words of ``data.formats.protocol_kinds``; for curation alone.
    """

    dataset: str
    volume: str
    patient: str
    anatomy: str = ""
    contrast: str = ""
    fat_suppressed: bool | None = None
    orientation: str = ""
    acquisition: str = ""
    modality: str = ""
    vendor: str = ""
    field_strength: float = 0.0
    center: str = ""
    sex: str | None = None
    weight_bin_kg: int | None = None
    num_slices: int
    num_frames: int | None = None
    num_coils: int
    height: int
    width: int
    recon_height: int
    recon_width: int
    fov_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    padding_left: int = 0
    padding_right: int
    max_value: float = 0.0
    norm: float = 0.0
    protocol_kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("num_slices", "num_coils", "height", "width", "recon_height", "recon_width")}
        for name, size in sizes.items():
            if size < 1:
                raise ScanError(f"{self.volume}: {name}={size}", "must be at least 1", "Check the header of the scan.")
        if self.num_frames is not None and self.num_frames < _FEWEST_FRAMES:
            raise ScanError(
                f"{self.volume}: num_frames={self.num_frames}",
                f"must be at least {_FEWEST_FRAMES}",
                "A scan of one time has no frames: None.",
            )
        if not 0 <= self.padding_left < self.padding_right <= self.width:
            raise ScanError(
                f"{self.volume}: measured lines [{self.padding_left}, {self.padding_right})",
                f"must lie within the {self.width} phase encodes",
                "Header and k-space disagree; export the scan again.",
            )

    @property
    def num_images(self) -> int:
        """Slices times frames: how many k-spaces the volume holds."""
        return self.num_slices * (self.num_frames or 1)

    def place(self, image: int) -> tuple[int, int | None]:
        """Return slice and frame of an image: the frames of a slice follow each other; the frame is None where there are none."""
        return (image, None) if self.num_frames is None else divmod(image, self.num_frames)
