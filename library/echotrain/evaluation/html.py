"""What all pages share: their templates, and charts and pictures as parts of a page that takes nothing from elsewhere."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from matplotlib import colormaps
from numpy import float32
from numpy.typing import NDArray

from echotrain.evaluation.figures import ERROR_COLORS, ERROR_GAIN, Chart, error_movie, error_png, gray_movie, gray_png, kspace_png, window
from echotrain.evaluation.results import TARGET, Example
from echotrain.metrics.table import METRICS
from echotrain.metrics.volume import psnr, ssim

__all__ = [
    "Picture",
    "chart_images",
    "data_uri",
    "error_picture",
    "example_pictures",
    "method_picture",
    "render",
    "score_text",
    "shared_pictures",
    "target_picture",
]

_PIXELS_PER_INCH = 110


def render(template: str, **values: Any) -> str:
    """Return a page from a template of this package; everything is escaped."""
    loader = jinja2.PackageLoader("echotrain.evaluation")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(error_gain=ERROR_GAIN, error_gradient=_gradient(), **values)


def data_uri(data: bytes, kind: str) -> str:
    """Return bytes of a MIME type as a part of the page."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def chart_images(chart: Chart) -> dict[str, str]:
    """Return a chart for pages on light and on dark ground, and how wide it may become before its letters are larger than the text's."""
    width = f"{chart.figure.get_figwidth() * _PIXELS_PER_INCH:.0f}px"
    return {"light": data_uri(chart.light, "image/svg+xml"), "dark": data_uri(chart.dark, "image/svg+xml"), "width": width}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture on a page.

    Attributes:
        title, note: Below it.
        png: The picture; empty leaves the place empty.
        movie: The same in motion, for those who do not mind; empty where nothing moves.
    """

    title: str
    png: bytes
    note: str
    movie: bytes = b""

    def on_page(self) -> dict[str, str]:
        """Return what a template needs."""
        uris = {name: data_uri(data, "image/png") if data else "" for name, data in (("uri", self.png), ("movie", self.movie))}
        return {"title": self.title, "note": self.note, **uris}


def example_pictures(example: Example, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Return pictures of one slice under what it shows."""
    details = [
        example.attributes.anatomy,
        example.attributes.contrast,
        f"R = {example.attributes.acceleration:g}",
        f"slice {example.slice}",
        f"{len(example.frames[TARGET])} frames" if example.frames else "",
    ]
    height, width = example.target.shape
    return {
        "caption": " · ".join(part for part in details if part),
        "name": f"{example.dataset}/{example.volume}",
        "pictures": [picture.on_page() for picture in pictures],
        "height": height,
        "width": width,
    }


def shared_pictures(example: Example) -> dict[str, Any]:
    """Return the masked k-space, every method and the target in one row (MosaicMRI's Figure 6), and the errors below them.

    Args:
        example: Its images by what readers call their methods.
    """
    white = window(example)
    pictures = [method_picture(example, name, name, white) for name in example.images]
    pictures.append(target_picture(example, white))
    errors = [error_picture(example, name, name, white) for name in example.images]
    if example.masked_kspace is not None:
        note = "log of the root sum of squares over coils, in the image’s shape; black: not acquired"
        pictures.insert(0, Picture(title="Masked k-space", png=kspace_png(example.masked_kspace), note=note))
        errors.insert(0, Picture(title="", png=b"", note=""))
    return {**example_pictures(example, [*pictures, *errors]), "columns": len(pictures)}


def method_picture(example: Example, name: str, title: str, white: float) -> Picture:
    """Return a slice by one method, with its scores."""
    image = example.images[name]
    movie = gray_movie(example.frames[name], white) if example.frames else b""
    return Picture(title=title, png=gray_png(image, white), note=score_text(example, image), movie=movie)


def target_picture(example: Example, white: float) -> Picture:
    """Return the target of a slice."""
    movie = gray_movie(example.frames[TARGET], white) if example.frames else b""
    return Picture(title="Target", png=gray_png(example.target, white), note="fully sampled", movie=movie)


def error_picture(example: Example, name: str, note: str, white: float) -> Picture:
    """Return what a method got wrong."""
    movie = error_movie(example, name, white) if example.frames else b""
    return Picture(title=f"Error × {ERROR_GAIN}", png=error_png(example, example.images[name], white), note=note, movie=movie)


def score_text(example: Example, image: NDArray[float32]) -> str:
    """Return PSNR and SSIM of one slice."""
    target, image = example.target[None], image[None]
    decibels, likeness = psnr(target, image, example.max_value), ssim(target, image, example.max_value)
    return f"{decibels:.{METRICS['psnr'].note_digits}f} dB · SSIM {likeness:.{METRICS['ssim'].note_digits}f}"


def _gradient() -> str:
    colors = (colormaps[ERROR_COLORS](step / 8) for step in range(9))
    return ", ".join(f"rgb({red * 255:.0f} {green * 255:.0f} {blue * 255:.0f})" for red, green, blue, _ in colors)
