"""The page of a study: its sections with tables, figures and pictures, each exhibit to be taken along as files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from echotrain.evaluation.figures import Chart
from echotrain.evaluation.html import chart_images, data_uri, render, shared_pictures
from echotrain.evaluation.results import Example
from echotrain.evaluation.tables import Table

__all__ = ["Exhibit", "StudySection", "exhibit_files", "render_study"]

TEMPLATE = "study.html.j2"
_KINDS = {
    "csv": "text/csv",
    "md": "text/markdown",
    "tex": "application/x-tex",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "png": "image/png",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Exhibit:
    """A table or a figure.

    Attributes:
        name: Of its files, without an ending.
        title: Above it.
        content: What is shown.
        caption: How to read it.
    """

    name: str
    title: str
    content: Table | Chart
    caption: str = ""

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """Return it as files, by their endings: a table as CSV, Markdown and LaTeX, a figure as SVG, PDF and PNG."""
        if isinstance(self.content, Chart):
            return self.content.files()
        forms = {"csv": self.content.to_csv(), "md": self.content.to_markdown(), "tex": self.content.to_latex()}
        return {ending: text.encode() for ending, text in forms.items()}


@dataclass(frozen=True, kw_only=True)
class StudySection:
    """One question of a study.

    Attributes:
        name: A plain word: its anchor.
        title: Its heading.
        text: What was done, in a few sentences.
        exhibits: In the order of showing.
        examples: Slices as all methods show them.
        missing: What could not be had, and why.
        files: Further files to be taken along, by their names.
    """

    name: str
    title: str
    text: str
    exhibits: tuple[Exhibit, ...] = ()
    examples: tuple[Example, ...] = ()
    missing: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


def render_study(
    sections: Sequence[StudySection], *, title: str, note: str = "", facts: Mapping[str, str] | None = None, generated: str = ""
) -> str:
    """Return the page, which takes nothing from elsewhere; every exhibit's files are in it, to be saved by a click.

    Args:
        sections: In the order of reading.
        title: Heading of the page.
        note: What a reader must know first.
        facts: What was studied, in words.
        generated: When and by what, for the footer.
    """
    return render(
        TEMPLATE,
        title=title,
        note=note,
        facts=facts or {},
        sections=[_section(section) for section in sections],
        generated=generated,
    )


def exhibit_files(sections: Sequence[StudySection]) -> Iterator[tuple[str, bytes]]:
    """Yield every exhibit's files, ``figures/NAME.svg`` and so on, ``tables/NAME.csv`` and so on, and the sections' own."""
    for section in sections:
        for exhibit in section.exhibits:
            folder = "figures" if isinstance(exhibit.content, Chart) else "tables"
            for ending, data in exhibit.files.items():
                yield f"{folder}/{exhibit.name}.{ending}", data
        for name, data in section.files.items():
            yield f"tables/{name}", data


def _section(section: StudySection) -> dict[str, Any]:
    return {
        "name": section.name,
        "title": section.title,
        "text": section.text,
        "missing": section.missing,
        "exhibits": [_exhibit(exhibit) for exhibit in section.exhibits],
        "examples": [shared_pictures(example) for example in section.examples],
        "files": [_file(name, data) for name, data in section.files.items()],
    }


def _exhibit(exhibit: Exhibit) -> dict[str, Any]:
    is_chart = isinstance(exhibit.content, Chart)
    return {
        "title": exhibit.title,
        "caption": exhibit.caption,
        "table": None if is_chart else exhibit.content,
        "chart": chart_images(exhibit.content) if isinstance(exhibit.content, Chart) else None,
        "files": [{"ending": ending, **_file(f"{exhibit.name}.{ending}", data)} for ending, data in exhibit.files.items()],
    }


def _file(name: str, data: bytes) -> dict[str, str]:
    return {"name": name, "uri": data_uri(data, _KINDS[name.rpartition(".")[2]])}
