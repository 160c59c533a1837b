"""From magnitude slices, or patches of them, to vectors whose angle says how alike two of them look."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from skimage.feature import hog
from skimage.transform import resize

from echotrain.errors import ConfigError
from echotrain.similarity.dreamsim import DreamSimEmbedder
from echotrain.similarity.vit import VitEmbedder
from echotrain.similarity.white import scaled_to_white

__all__ = ["EMBEDDERS", "Embedder", "GradientEmbedder", "make_embedder"]

_SIDE = 128
_COARSE = 16
# How strong a patch must be to be told from nothing, as a share of its volume's maximum: with the authors' threshold of 0.6, patches are
# blank up to a standard deviation of 2%. Receiver noise beside a phantom had 1.7%, the faintest corners of a head 3%.
_FAINT = 0.015


class Embedder(Protocol):
    """Turns slices, and patches of slices, into vectors."""

    @property
    def name(self) -> str:
        """What a subset says it was chosen by."""

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a vector of length 1 per image; that of a blank image is zero.

        Args:
            images: Magnitudes (n, y, x), of any scale.
        """

    def embed_patches(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a vector per patch, of a length near 1; that of an all-zero patch is a direction like any other.

        So the cosine to it says how blank a patch is, which a slice's zero vector could not.

        Args:
            patches: Magnitudes as shares of the volume's maximum, (n, side, side): how strong a patch is must count here.
        """


class GradientEmbedder:
    """Histograms of oriented gradients beside a coarse picture: needs no weights, and is the same on every machine.

    Slices are resized to 128 x 128 and divided by their 99.5th percentile, so that neither matrix nor receiver gain counts. Source of the
    histograms: Dalal & Triggs, CVPR 2005, as in scikit-image: 9 orientations, cells of 16 pixels, blocks of 2 x 2 cells. The coarse
    picture, 16 x 16 means around their mean, tells a head from a limb where edges alone do not. Both halves count alike.
    """

    name = "gradients"

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors (n, 2020)."""
        return np.stack([self._embed(image) for image in images])

    def _embed(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled = scaled_to_white(image)
        if scaled is None:
            return np.zeros(_HOG_LENGTH + _COARSE**2, np.float32)
        return _shape_of(np.clip(resize(scaled, (_SIDE, _SIDE), anti_aliasing=True), 0, 1))

    def embed_patches(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors (n, 2021): what a patch looks like, times its standard deviation, beside a constant that alone is left of nothing.

        So two clear patches are compared by their shape, and a patch is the more like an all-zero one the fainter its shape is, a bright
        one without any included. The side is a multiple of 16.
        """
        return np.stack([self._embed_patch(patch) for patch in patches])

    def _embed_patch(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        strength = float(patch.std())
        vector = np.append(strength * _shape_of(patch), np.float32(_FAINT))
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def _shape_of(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what an image of a side that is a multiple of 16 looks like, (2020,), of length 1 unless it is all alike."""
    cell = len(image) // 8
    edges = hog(image, orientations=9, pixels_per_cell=(cell, cell), cells_per_block=(2, 2))
    coarse = image.reshape(_COARSE, len(image) // _COARSE, _COARSE, -1).mean(axis=(1, 3)).ravel()
    halves = [part / max(float(np.linalg.norm(part)), 1e-12) for part in (edges, coarse - coarse.mean())]
    return np.asarray(np.concatenate(halves) / np.sqrt(2), dtype=np.float32)


_HOG_LENGTH = 9 * 4 * 7 * 7


def make_embedder(name: str, weights: str = "") -> Embedder:
    """Return an embedder.

    Args:
        name: One of ``EMBEDDERS``.
        weights: URI of what it needs.

    Raises:
        ConfigError: There is none of this name, or its weights or its package are missing.
        CheckpointError: Its weights cannot be what they should.
    """
    if name not in EMBEDDERS:
        raise ConfigError(f"embedder={name!r}", f"must be one of {', '.join(EMBEDDERS)}", "Use gradients, which needs no weights.")
    return EMBEDDERS[name](weights)


def _gradients(weights: str) -> Embedder:
    if weights:
        raise ConfigError(f"weights={weights}", "are not used by the embedder gradients", "Leave them out.")
    return GradientEmbedder()


EMBEDDERS: dict[str, Callable[[str], Embedder]] = {"gradients": _gradients, "dreamsim": DreamSimEmbedder, "vit": VitEmbedder}
