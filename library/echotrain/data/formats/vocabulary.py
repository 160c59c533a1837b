"""Vocabularies of free text: spellings that stand for one word each, found as words of their own and nowhere else.

A spelling is written in lower case. A blank in it stands for any few separators or none, so that ``fat sat`` finds ``FAT SAT``,
``fat_sat`` and ``FATSAT``; a ``~`` for any few letters and digits; every other character for itself. Letters and digits may not touch a
spelling: ``hand`` is not in ``handled``.
"""

import re
import unicodedata
from collections.abc import Mapping

__all__ = ["Vocabulary", "plain"]

# Names of protocols have 64 characters; whoever sends more is not made to wait for it.
_LONGEST = 2048
_DIGRAPHS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "æ": "ae", "ø": "oe"})
_SEPARATORS, _FURTHER = r"[\W_]{0,3}", r"[a-z0-9]{0,32}"


class Vocabulary:
    """Words that a text may hold, each in several spellings.

    Args:
        spellings: By word, separated by commas. Those of the word "" are read over, so that nothing shorter is found in them.
    """

    def __init__(self, spellings: Mapping[str, str]) -> None:
        pairs = [(spelling.strip(), word) for word, listed in spellings.items() for spelling in listed.split(",")]
        # Of two that begin at one place the longer one counts: "radial head" is no "radial".
        pairs.sort(key=lambda pair: -len(pair[0]))
        self._words = [word for _, word in pairs]
        self._pattern = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(f'({_pattern_of(spelling)})' for spelling, _ in pairs)})(?![a-z0-9])")

    def said(self, text: str) -> list[str]:
        """Return the words that a ``plain`` text says, in its order."""
        words = (self._words[(found.lastindex or 0) - 1] for found in self._pattern.finditer(text))
        return [word for word in words if word]

    def first(self, text: str) -> str:
        """Return the word that a ``plain`` text says first, "" where it says none."""
        return next(iter(self.said(text)), "")

    def without(self, text: str) -> str:
        """Return a ``plain`` text with every spelling blanked."""
        return self._pattern.sub(" ", text)


def plain(text: str) -> str:
    """Return the text in lower case and without accents, umlauts written as ASCII writes them; only its beginning where it is long."""
    folded = unicodedata.normalize("NFC", text[:_LONGEST]).casefold().translate(_DIGRAPHS)
    return "".join(character for character in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(character))


def _pattern_of(spelling: str) -> str:
    stands_for = {" ": _SEPARATORS, "~": _FURTHER}
    return "".join(stands_for.get(character, re.escape(character)) for character in spelling)
