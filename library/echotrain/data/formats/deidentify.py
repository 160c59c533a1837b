"""De-identification on the way in: nothing that names a person, a place or a date gets past the readers.

Patients, sites and, where necessary, volumes become keyed hashes. The default key is public: it keeps pseudonyms
stable between runs of the project, but whoever holds a list of patient numbers can hash them too. Set a secret
salt (``ECHOTRAIN_DEID_SALT``) where patient numbers are guessable and the catalog leaves the house.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from anyascii import anyascii

__all__ = ["PSEUDONYM_SCHEME", "PUBLIC_SALT", "SALT_VARIABLE", "Deidentifier", "Identity", "reads_as_identifier", "safe_word"]

PUBLIC_SALT = "echotrain: a public salt, stable pseudonyms but no secrecy"
SALT_VARIABLE = "ECHOTRAIN_DEID_SALT"
# Raised when the same identity comes to another pseudonym: catalogs of two schemes must not be joined.
PSEUDONYM_SCHEME = 2

_MIN_IDENTIFIER = 3
_MIN_NAME = 2
# How German, Danish and Swedish write their letters where only ASCII is to be had; elsewhere the accent is dropped.
_DIGRAPHS = str.maketrans({"ä": "ae", "æ": "ae", "ö": "oe", "ø": "oe", "ü": "ue", "å": "aa"})
_DATE = re.compile(r"(?<!\d)(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?!\d)")
_DATE_DAY_FIRST = re.compile(r"(?<!\d)(?:0[1-9]|[12]\d|3[01])[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:19|20)\d\d(?!\d)")
_UID = re.compile(r"\d+(?:\.\d+){4,}")
_SAFE_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
_SAFE_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
# Words of a name or an institution that are everywhere, so their presence in a file name says nothing.
_COMMON_WORDS = {
    "the",
    "and",
    "for",
    "hospital",
    "clinic",
    "klinikum",
    "university",
    "institute",
    "center",
    "centre",
    "mri",
    "brain",
    "knee",
    "spine",
    "phantom",
    "pd",
    "fs",
    "ax",
    "cor",
    "sag",
}


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a scan's header says about who, where and when; it lives only inside a reader.

    Attributes:
        patient_id: The site's patient number, or a dataset's pseudonym.
        patient_name: Name, in any spelling.
        birth_date: Date of birth, in any spelling.
        institution: Where it was measured.
        others: Further identifying texts: UIDs, accession numbers, physicians, dates.
    """

    patient_id: str = ""
    patient_name: str = ""
    birth_date: str = ""
    institution: str = ""
    others: tuple[str, ...] = ()

    def occurs_in(self, text: str) -> bool:
        """Say whether a text holds any of these identifiers, in any spelling; a name of two letters only as a word of its own."""
        haystacks, words = _spellings(text), set(_words(text))
        return any(needle in haystack for needle in self._needles() for haystack in haystacks) or any(
            len(name) >= _MIN_NAME and name not in _COMMON_WORDS and not _is_blank(name) and name in words
            for name in _words(self.patient_name)
        )

    def _needles(self) -> Iterator[str]:
        whole = (self.patient_id, self.birth_date, self.patient_name, self.institution, *self.others)
        words = re.split(r"[\W_]+", f"{self.patient_name} {self.institution}")
        for text in (*whole, *words, *_date_spellings(self.birth_date)):
            for needle in _spellings(text):
                if len(needle) >= _MIN_IDENTIFIER and needle not in _COMMON_WORDS and not _is_blank(needle):
                    yield needle


class Deidentifier:
    """Turns identities into pseudonyms by a keyed hash. No dataclass: those show their fields to whatever dumps them.

    Args:
        salt: The key; an empty one stands for ``PUBLIC_SALT``.
    """

    def __init__(self, salt: str = "") -> None:
        self._salt = salt or PUBLIC_SALT

    @classmethod
    def of_environment(cls) -> Self:
        """Take the salt that ``ECHOTRAIN_DEID_SALT`` holds, else the public one."""
        return cls(os.environ.get(SALT_VARIABLE, ""))

    def pseudonym(self, kind: str, *parts: str) -> str:
        """Hash text to ``<kind>-<12 hexadecimal digits>``."""
        key = hashlib.blake2b(self._salt.encode()).digest()
        digest = hashlib.blake2b("\x1f".join((kind, *parts)).encode(), key=key, digest_size=6)
        return f"{kind}-{digest.hexdigest()}"

    def patient(self, identity: Identity, volume: str) -> str:
        """Return the pseudonym that all scans of one person share.

        The patient number decides, else name and birth date. A scan with neither becomes a patient of its own, ``unnamed-…``:
        two such scans of one person cannot be told to belong together.
        """
        if not _is_blank(_squeeze(identity.patient_id)):
            return self.pseudonym("patient", identity.patient_id.strip().casefold())
        if not _is_blank(_squeeze(identity.patient_name)):
            return self.pseudonym("patient", _squeeze(identity.patient_name), _squeeze(identity.birth_date))
        return self.pseudonym("unnamed", volume)

    def volume(self, stem: str, identity: Identity) -> str:
        """Return the file's stem where it is a plain name without identifiers, else a pseudonym of it."""
        if _SAFE_STEM.fullmatch(stem) and not identity.occurs_in(stem) and not reads_as_identifier(stem):
            return stem
        return self.pseudonym("volume", stem)

    def center(self, identity: Identity) -> str:
        """Return the pseudonym of the institution, or "" where the header names none."""
        return "" if _is_blank(_squeeze(identity.institution)) else self.pseudonym("site", _squeeze(identity.institution))


def safe_word(text: str, identity: Identity) -> str:
    """Return a single short word as it is, or "" where it is free text or holds an identifier."""
    return text if _SAFE_WORD.fullmatch(text) and not identity.occurs_in(text) and not reads_as_identifier(text) else ""


def reads_as_identifier(text: str) -> bool:
    """Say whether a text holds a date or a UID, whoever it belongs to."""
    return any(pattern.search(text) for pattern in (_DATE, _DATE_DAY_FIRST, _UID))


def _squeeze(text: str) -> str:
    """Fold case and accents and drop everything but letters and digits, so that ``Doe^Jane`` is found in ``jane-doe`` word by word."""
    return "".join(character for character in anyascii(text).casefold() if character.isalnum())


def _spellings(text: str) -> set[str]:
    """Return the ways in which a text is squeezed into ASCII: ``Müller`` is written ``muller`` and ``mueller``."""
    return {_squeeze(text), _squeeze(unicodedata.normalize("NFC", text).casefold().translate(_DIGRAPHS))}


def _words(text: str) -> list[str]:
    """Return the runs of letters of a text, squeezed."""
    return [_squeeze(word) for word in re.findall(r"[^\W\d_]+", text)]


def _is_blank(text: str) -> bool:
    """Say whether an identifier was blanked before: empty, or one character repeated, as anonymisers write it."""
    return len(set(text)) <= 1 or text in {"unknown", "none", "anonymous", "anon", "anonymized", "anonymised"}


def _date_spellings(date: str) -> Iterable[str]:
    digits = re.sub(r"\D", "", date)
    if len(digits) != len("YYYYMMDD"):
        return ()
    year, month, day = digits[:4], digits[4:6], digits[6:]
    return (digits, day + month + year, month + day + year, year[2:] + month + day, day + month + year[2:])
