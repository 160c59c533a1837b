"""The settings of a study as one types them: its own, its sections', and the experiment's."""

import dataclasses
import difflib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from echotrain.config import override, to_dict
from echotrain.errors import ConfigError
from echotrain.studies.registry import SECTIONS
from echotrain.studies.section import Section
from echotrain.studies.study import Study, StudySettings
from echotrain.training.experiment import flatten

__all__ = ["override_study", "study_settings"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Named:
    """The sections of a study by name."""

    sections: tuple[str, ...]


def override_study(study: Study, settings: Sequence[str]) -> Study:
    """Return a study with ``dotted.path=value`` applied: of the study and its sections by their names, all others of the experiment.

    ``sections=[...]`` comes first, wherever it stands: a section that the study does not know begins with its own defaults. A setting that
    several sections have is set in each; one that only sections have that are not asked for is checked, and has no effect.

    Raises:
        ConfigError: As ``override``; an unknown section; or a seed is given, which a study has several of.
    """
    heads = [re.split(r"[.=]", setting, maxsplit=1)[0] for setting in settings]
    if "seed" in heads:
        raise ConfigError(settings[heads.index("seed")], "is one seed, and a study repeats its models", "Give seeds=[1,2,3].")
    own, of_sections = _fields(StudySettings), {name for section in SECTIONS.values() for name in _fields(section)}

    def given(fits: Callable[[str], bool]) -> list[str]:
        return [setting for setting, head in zip(settings, heads, strict=True) if fits(head)]

    named = override(_Named(sections=tuple(section.name for section in study.sections)), given(lambda head: head == "sections"))
    at_hand = {section.name: section for section in (*study.further, *study.sections)}
    sections = [_overridden(section, given) for section in _chosen(at_hand, named.sections)]
    known = {name for section in sections for name in _fields(type(section))}
    for head in dict.fromkeys(head for head in heads if head in of_sections - known):
        _ignore(head, given(lambda other, head=head: other == head))  # type: ignore[misc]
    base = override(study.base, given(lambda head: head not in own | of_sections | {"sections"}))
    further = tuple(section for name, section in at_hand.items() if name not in named.sections)
    return Study(**_values(_own(study, given(lambda head: head in own))), base=base, sections=tuple(sections), further=further)


def study_settings(study: Study) -> dict[str, Any]:
    """Return every setting of a study by the path by which one types it, those of the experiment last."""
    sections = {path: value for section in study.sections for path, value in flatten(to_dict(section)).items()}
    base = {path: value for path, value in flatten(to_dict(study.base)).items() if path not in ("name", "seed")}
    named = {"sections": [section.name for section in study.sections]}
    return {**flatten(to_dict(_own(study, []))), **named, **sections, **base}


def _chosen(at_hand: Mapping[str, Section], names: Sequence[str]) -> list[Section]:
    """Return the sections of these names, in the order of a page, as the study has them where it has them."""
    for name in names:
        if name not in SECTIONS:
            nearest = difflib.get_close_matches(name, SECTIONS, n=1, cutoff=0.0)[0]
            raise ConfigError(f"sections={list(names)}", f"{name!r} is none of {', '.join(SECTIONS)}", f"Did you mean {nearest!r}?")
    order = list(SECTIONS)
    return [at_hand.get(name) or SECTIONS[name]() for name in sorted(names, key=order.index)]


def _overridden(section: Section, given: Callable[[Callable[[str], bool]], list[str]]) -> Section:
    names = _fields(type(section))
    return override(section, given(lambda head: head in names))


def _ignore(head: str, settings: Sequence[str]) -> None:
    """Check settings that nothing heeds, and say so."""
    owners = [section for section in SECTIONS.values() if head in _fields(section)]
    for owner in owners:
        override(owner(), settings)
    logger.warning("%s has no effect: %s is not among the sections", settings[-1], " or ".join(owner.name for owner in owners))


def _own(study: Study, settings: Sequence[str]) -> StudySettings:
    return override(StudySettings(**{name: getattr(study, name) for name in _fields(StudySettings)}), settings)


def _values(settings: StudySettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in _fields(StudySettings)}


def _fields(cls: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}
