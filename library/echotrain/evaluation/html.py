"""What all pages share: their templates, and charts and pictures as parts of a page that takes nothing from elsewhere."""

import base64
from collections.abc import Sequence
from typing import Any

import jinja2
from matplotlib import colormaps
from numpy import float32
from numpy.typing import NDArray

from echotrain.evaluation.figures import ERROR_COLORS, ERROR_GAIN, Chart, error_png, gray_png, kspace_png, window
from echotrain.evaluation.results import Example
from echotrain.metrics.table import METRICS
from echotrain.metrics.volume import psnr, ssim

__all__ = ["chart_images", "data_uri", "example_pictures", "render", "score_text", "shared_pictures"]

_PIXELS_PER_INCH = 110
_NO_PICTURE = ("", b"", "")


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


def example_pictures(example: Example, pictures: Sequence[tuple[str, bytes, str]]) -> dict[str, Any]:
    """Return pictures of one slice under what it shows.

    Args:
        example: The slice.
        pictures: Title, PNG and note of each; an empty PNG leaves a place empty.
    """
    details = [
        example.attributes.anatomy,
        example.attributes.contrast,
        f"R = {example.attributes.acceleration:g}",
        f"slice {example.slice}",
    ]
    height, width = example.target.shape
    return {
        "caption": " · ".join(part for part in details if part),
        "name": f"{example.dataset}/{example.volume}",
        "pictures": [{"title": name, "uri": data_uri(data, "image/png") if data else "", "note": note} for name, data, note in pictures],
        "height": height,
        "width": width,
    }


def shared_pictures(example: Example) -> dict[str, Any]:
    """Return the masked k-space, every method and the target in one row (MosaicMRI's Figure 6), and the errors below them.

    Args:
        example: Its images by what readers call their methods.
    """
    white = window(example)
    pictures = [(name, gray_png(image, white), score_text(example, image)) for name, image in example.images.items()]
    pictures.append(("Target", gray_png(example.target, white), "fully sampled"))
    errors = [(f"Error × {ERROR_GAIN}", error_png(example, image, white), name) for name, image in example.images.items()]
    if example.masked_kspace is not None:
        note = "log of the root sum of squares over coils, in the image’s shape; black: not acquired"
        pictures.insert(0, ("Masked k-space", kspace_png(example.masked_kspace), note))
        errors.insert(0, _NO_PICTURE)
    return {**example_pictures(example, [*pictures, *errors]), "columns": len(pictures)}


def score_text(example: Example, image: NDArray[float32]) -> str:
    """Return PSNR and SSIM of one slice."""
    target, image = example.target[None], image[None]
    decibels, likeness = psnr(target, image, example.max_value), ssim(target, image, example.max_value)
    return f"{decibels:.{METRICS['psnr'].note_digits}f} dB · SSIM {likeness:.{METRICS['ssim'].note_digits}f}"


def _gradient() -> str:
    colors = (colormaps[ERROR_COLORS](step / 8) for step in range(9))
    return ", ".join(f"rgb({red * 255:.0f} {green * 255:.0f} {blue * 255:.0f})" for red, green, blue, _ in colors)
