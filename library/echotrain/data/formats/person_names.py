"""What of a person's name and birth date is the same in every spelling, so that two headers can be told to speak of one person."""

import re
import unicodedata
from dataclasses import dataclass

from anyascii import anyascii

__all__ = ["NameParts", "birthday", "name_parts"]

# Words of titles, and of names that a study gives: they are everybody's.
_GENERIC_TEXT = """dr med prof mr mrs ms miss jr sr phd md herr frau vol volunteer sub subj subject pat patient case participant proband
visit session ses scan study test phantom anon anonymous anonymized anonymised unknown no name mri"""
_GENERIC_WORDS = frozenset(_GENERIC_TEXT.split())
_YEARS = range(1850, 2100)


@dataclass(frozen=True, kw_only=True)
class NameParts:
    """What a name says.

    Attributes:
        words: Its words of letters, folded and sorted, without titles and words of studies.
        labels: Its words with digits, folded and sorted (``vol01``, ``7``).
    """

    words: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


def name_parts(name: str) -> NameParts:
    """Take a name apart, in whatever order its words are, in every script that DICOM's groups (``=``) write it in.

    ``Müller``, ``Mueller`` and ``Muller`` are one word: digraphs are folded, at the price that ``Doe`` and ``Do`` are one too.
    """
    text = unicodedata.normalize("NFC", name)
    runs = [run for run in re.findall(r"[a-z0-9]+", anyascii(re.sub(r"[\W_]", " ", text)).casefold()) if run]
    words = {_folded(word) for run in runs for word in re.findall(r"[a-z]+", run) if word not in _GENERIC_WORDS}
    return NameParts(words=tuple(sorted(words)), labels=tuple(sorted({run for run in runs if re.search(r"\d", run)})))


def birthday(text: str) -> str:
    """Return a birth date as year, and day and month in ascending order, as nobody knows which comes first; "" for none.

    The first of January is what anonymisers leave of a year, so it is none.
    """
    digits = re.sub(r"\D", "", text.strip().partition("T")[0])
    if len(digits) != len("YYYYMMDD"):
        return ""
    for year, rest in ((digits[:4], digits[4:]), (digits[4:], digits[:4])):
        low, high = sorted((int(rest[:2]), int(rest[2:])))
        if int(year) in _YEARS and 1 <= low <= 12 and high <= 31:
            return "" if (low, high) == (1, 1) else f"{year}-{low:02d}-{high:02d}"
    return ""


def _folded(word: str) -> str:
    return re.sub(r"aa", "a", re.sub(r"([aou])e", r"\1", word))
