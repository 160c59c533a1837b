"""De-identification on the way in: an allow-list, so that nothing that names a person, a place or a date gets past the readers.

Patients, sites and volumes become keyed hashes. A volume keeps its file's name where that is a public data set's
(``public_names``), or fits a pattern that the user gave, and holds nothing that its own header says of the patient.
The key is secret (``salt``); the public one is for simulated scans, whose figures are to be the same everywhere, and for
catalogs that were made with it: whoever holds a list of patient numbers can hash them too.
"""

import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self

from anyascii import anyascii

from echotrain.data.formats.person_names import birthday, name_parts
from echotrain.data.formats.public_names import (
    is_plain_folder,
    is_public_folder,
    is_public_stem,
    own_numbers,
    subject_of,
    subject_of_stem,
    with_subject,
)
from echotrain.data.formats.salt import SALT_VARIABLE, kept_salt
from echotrain.errors import ConfigError

__all__ = [
    "PSEUDONYM_SCHEME",
    "PUBLIC_SALT",
    "SALT_VARIABLE",
    "VOLUME_PREFIX",
    "Deidentifier",
    "Identity",
    "Person",
    "Witness",
    "compile_safe_names",
    "is_blank",
    "reads_as_identifier",
    "safe_word",
]

PUBLIC_SALT = "echotrain: a public salt, stable pseudonyms but no secrecy"
# What the id of a volume begins with that is a pseudonym.
VOLUME_PREFIX = "volume-"
# Raised when the same identity comes to another pseudonym: catalogs of two schemes must not be joined.
PSEUDONYM_SCHEME = 3

_MIN_IDENTIFIER = 3
_MIN_NAME = 2
# Shorter numbers are everywhere: they count where they stand alone, "0042" and "42" as one.
_MIN_NUMBER = 5
# How German, Danish and Swedish write their letters where only ASCII is to be had; elsewhere the accent is dropped.
_DIGRAPHS = str.maketrans({"ä": "ae", "æ": "ae", "ö": "oe", "ø": "oe", "ü": "ue", "å": "aa"})
_DATE = re.compile(r"(?<!\d)(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?!\d)")
_DATE_DAY_FIRST = re.compile(r"(?<!\d)(?:0[1-9]|[12]\d|3[01])[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:19|20)\d\d(?!\d)")
# Two digits each, in whatever order: as a birth date is typed into a protocol's name.
_DATE_SHORT = re.compile(r"(?<![\d.])\d\d([-_.])\d\d\1\d\d(?![\d.])")
# What of a word's beginnings tells an initial or a name cut short.
_MAX_BEGINNING = 4
_UID = re.compile(r"\d+(?:\.\d+){4,}")
# Of a location its scheme and the file's ending, s3:// and .h5, which are no patients of the numbers 3 and 5.
_NO_NAME = re.compile(r"^[a-z0-9]+://|\.[A-Za-z]{1,8}5?$", re.ASCII)
_SAFE_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
_SAFE_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
# What anonymisers write instead of a number or a name.
_BLANK_TEXT = "unknown none null na anonymous anon anonymized anonymised anonymize anonymise deidentified removed redacted noname"
_BLANK_WORDS = frozenset(_BLANK_TEXT.split())
_MIN_REPEATED, _MIN_REPEATED_DIGIT = 4, 6
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
    """What a scan's header says about who, where and when; it lives inside a reader, and in a key file where one was asked for.

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
        numbers = {number.lstrip("0") for number in re.findall(r"\d+", anyascii(text))}
        return any(_is_in(needle, haystacks, numbers) for needle in self._needles()) or any(
            len(name) >= _MIN_NAME and name not in _COMMON_WORDS and not is_blank(name) and name in words
            for name in _words(self.patient_name)
        )

    def _needles(self) -> Iterator[str]:
        whole = (self.patient_id, self.birth_date, self.patient_name, self.institution, *self.others)
        # A physician is named by the family name alone, a patient by the number without the site's letters before it.
        words = re.split(r"[\W_]+", f"{self.patient_name} {self.institution}")
        words += [word for text in self.others for word in re.findall(r"[^\W\d_]+|\d{5,}", text)]
        number = re.fullmatch(r"\D{0,6}(\d{3,})\D{0,3}", self.patient_id.strip())
        dates = [spelling for date in (self.birth_date, *self.others) for spelling in _date_spellings(date)]
        for text in (*whole, *words, *dates, number[1] if number else ""):
            for needle in _spellings(text):
                if len(needle) >= _MIN_IDENTIFIER and needle not in _COMMON_WORDS and not is_blank(needle):
                    yield needle


@dataclass(frozen=True, kw_only=True)
class Person:
    """Whom a header names, in pseudonyms that tell whether two headers may name one person (``data.preparing.people``).

    Attributes:
        person: Of the name, however its words are ordered and whatever the birth date is; "" where the header names nobody.
        words: Of every word of letters, each followed by those of its beginnings of one to four letters.
        labels: Of every word with digits.
        born: Of the birth date; "" for none.
    """

    person: str = ""
    words: tuple[tuple[str, ...], ...] = ()
    labels: tuple[str, ...] = ()
    born: str = ""


class Deidentifier:
    """Turns identities into pseudonyms by a keyed hash. No dataclass: those show their fields to whatever dumps them.

    Args:
        salt: The key; an empty one stands for ``PUBLIC_SALT``.
        safe_names: Regular expressions; a file's name without its ending that one of them matches in whole names nobody. The same
            goes for folders.
        root: Where the scans were looked for: what the user named, so that only its last folder and those below have to be safe.

    Raises:
        ConfigError: A regular expression is none.
    """

    def __init__(self, salt: str = "", *, safe_names: Iterable[str] = (), root: str = "") -> None:
        self._salt = salt or PUBLIC_SALT
        self._safe_names = compile_safe_names(safe_names)
        self._root = root
        self._place = ""

    @classmethod
    def of_environment(cls, *, safe_names: Iterable[str] = ()) -> Self:
        """Take the key that ``ECHOTRAIN_DEID_SALT`` or this user's configuration folder holds, else the public one."""
        return cls(kept_salt(), safe_names=safe_names)

    def pseudonym(self, kind: str, *parts: str) -> str:
        """Hash text to ``<kind>-<12 hexadecimal digits>``."""
        key = hashlib.blake2b(self._salt.encode()).digest()
        digest = hashlib.blake2b("\x1f".join((kind, *parts)).encode(errors="surrogatepass"), key=key, digest_size=6)
        return f"{kind}-{digest.hexdigest()}"

    def patient(self, identity: Identity, volume: str) -> str:
        """Return the pseudonym that all scans of one person share.

        The patient number decides, else the name, else the subject that the file's name or folder says (``public_names.subject_of``).
        A scan with none becomes a patient of its own, ``unnamed-…``, by its place: two such scans of one person cannot be told to
        belong together.

        Args:
            identity: What the header says.
            volume: The file's stem.
        """
        # Conversions of CMRxRecon write the file's stem for a patient number: every scan would be a patient.
        if not is_blank(identity.patient_id) and not subject_of_stem(identity.patient_id.strip()):
            return self.pseudonym("patient", identity.patient_id.strip().casefold())
        of_id = identity.patient_id.strip() if subject_of_stem(identity.patient_id.strip()) else ""
        subject = subject_of(self._folders(), volume) or subject_of((), of_id)
        by_place = self.pseudonym("patient", *subject) if subject else self.pseudonym("unnamed", self._place or volume)
        return self.person(identity).person or by_place

    def person(self, identity: Identity) -> Person:
        """Return whom a header names, without regard to the patient number."""
        if is_blank(identity.patient_name):
            return Person()
        parts = name_parts(identity.patient_name)
        born = birthday(identity.birth_date)
        beginnings = [(word, *(word[:size] for size in range(1, min(_MAX_BEGINNING, len(word) - 1) + 1))) for word in parts.words]
        return Person(
            person=self.pseudonym("patient", "name", *(parts.words or parts.labels or (_squeeze(identity.patient_name),))),
            words=tuple(tuple(self._part("word", part) for part in word) for word in beginnings),
            labels=tuple(self._part("label", label) for label in parts.labels),
            born=self._part("born", born) if born else "",
        )

    def volume(self, stem: str, identity: Identity) -> str:
        """Return the file's stem where a public data set or the user vouches for it and the header does not object, else a pseudonym.

        A number of the data set's own, such as the ``001`` of ``file_prostate_AXT2_001``, is no objection. CMRxRecon's files, which every
        subject's folder holds, get the subject in front: ``P001_cine_sax``.
        """
        if self.keeps_name(stem) and not _but_own(identity, stem).occurs_in(stem):
            name = with_subject(self._folders(), stem)
            if not _but_own(identity, name).occurs_in(name):
                return name
        return self.pseudonym(VOLUME_PREFIX.rstrip("-"), stem)

    def is_safe_name(self, stem: str) -> bool:
        """Say whether a public data set's patterns or the user's vouch for a file's name, without its ending."""
        return is_public_stem(stem) or self._is_given(stem)

    def keeps_name(self, stem: str) -> bool:
        """Say whether a safe name may be a volume's id as well, which becomes the name of files elsewhere: a plain word."""
        return _SAFE_STEM.fullmatch(stem) is not None and self.is_safe_name(stem)

    def is_safe_location(self, location: str, identity: Identity) -> bool:
        """Say whether a file's location may be written down: its name, the folders below the root and the root's own are safe.

        None of them may name whom the header names. They may hold blanks and signs that no volume's id does.
        """
        below = PurePosixPath(location.removeprefix(self._root))
        folders = [part for part in below.parts[:-1] if part != "/"] if self._root else []
        return (
            self.is_safe_name(below.stem)
            and not _but_own(identity, below.stem).occurs_in(below.stem)
            and all(is_public_folder(folder) or self._is_given(folder) for folder in folders)
            and self._is_safe_root()
            and not _but_own(identity, below.stem, *folders).occurs_in(_NO_NAME.sub("", location))
            and not reads_as_identifier(location)
        )

    def center(self, identity: Identity) -> str:
        """Return the pseudonym of the institution, or "" where the header names none."""
        return "" if is_blank(identity.institution) else self.pseudonym("site", _squeeze(identity.institution))

    def _is_safe_root(self) -> bool:
        """Say whether what the user named is called by what it holds; a store's own name is its owner's to choose, and no folder."""
        name = PurePosixPath(self._root).name
        is_store = "://" in self._root and self._root.rstrip("/").count("/") <= len("//")
        return not name or is_store or is_plain_folder(name) or self._is_given(name)

    def _folders(self) -> tuple[str, ...]:
        return PurePosixPath(self._place).parts[:-1]

    def _part(self, kind: str, text: str) -> str:
        return self.pseudonym(kind, text).rpartition("-")[2]

    def _is_given(self, name: str) -> bool:
        return any(pattern.fullmatch(name) for pattern in self._safe_names)


class Witness(Deidentifier):
    """Gives the pseudonyms of another deidentifier, and remembers whom a reader asked about last.

    Args:
        like: Whose key and patterns it has.
        place: URI of the scan, which says whose it is where its header does not.

    Attributes:
        identity: Who that was.
        is_by_place: Whether the file's name or folder said who that was, and not the header.
    """

    def __init__(self, like: Deidentifier, place: str = "") -> None:
        self._salt, self._safe_names, self._root, self._place = like._salt, like._safe_names, like._root, place
        self.identity = Identity()
        self.is_by_place = False

    def patient(self, identity: Identity, volume: str) -> str:
        """Return the pseudonym, and remember the identity."""
        self.identity = identity
        patient = super().patient(identity, volume)
        number = identity.patient_id.strip()
        is_named = (not is_blank(number) and not subject_of_stem(number)) or not is_blank(identity.patient_name)
        self.is_by_place = not is_named and patient.startswith("patient-")
        return patient


def compile_safe_names(patterns: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    """Compile the user's patterns of names that name nobody.

    Raises:
        ConfigError: One is no regular expression.
    """
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            remedy = r"Write a name's pattern in Python's syntax, such as 'study_\d+_t[12]'."
            raise ConfigError(f"safe name {pattern!r}", f"is no regular expression ({error})", remedy) from error
    return tuple(compiled)


def safe_word(text: str, identity: Identity) -> str:
    """Return a single short word as it is, or "" where it is free text or holds an identifier."""
    return text if _SAFE_WORD.fullmatch(text) and not identity.occurs_in(text) and not reads_as_identifier(text) else ""


def reads_as_identifier(text: str) -> bool:
    """Say whether a text holds a date or a UID, whoever it belongs to."""
    return any(pattern.search(text) for pattern in (_DATE, _DATE_DAY_FIRST, _DATE_SHORT, _UID))


def is_blank(text: str) -> bool:
    """Say whether an identifier was blanked before: empty, a word such as ``anonymous``, or one character repeated.

    In doubt it is an identifier. To take a number for a blank makes a patient of every scan, who leaks into two splits; to
    take a blank for a number makes one patient of many, which leaks nothing, and is told where the header has names
    (``data.preparing.identities``). So ``0``, ``1``, ``99`` and ``222`` are numbers, as subjects of a small study have them. ``xxxx``
    and ``0000`` are blanks: nobody is given them. A digit
    of 1 to 9 repeated is a blank from six on: ``1111`` is subject 1111 of a study of thousands.
    """
    text = _squeeze(text)
    if len(set(text)) == 1:
        return len(text) >= (_MIN_REPEATED_DIGIT if text[0] in "123456789" else _MIN_REPEATED)
    return not text or text in _BLANK_WORDS


def _but_own(identity: Identity, *names: str) -> Identity:
    """Return an identity without the numbers that a public data set's own names hold."""
    own = frozenset().union(*map(own_numbers, names))

    def is_own(text: str) -> bool:
        return bool(text) and text.strip().casefold().lstrip("0") in own

    others = tuple(text for text in identity.others if not is_own(text))
    return dataclasses.replace(identity, patient_id="" if is_own(identity.patient_id) else identity.patient_id, others=others)


def _squeeze(text: str) -> str:
    """Fold case and accents and drop everything but letters and digits, so that ``Doe^Jane`` is found in ``jane-doe`` word by word."""
    return "".join(character for character in anyascii(text).casefold() if character.isalnum())


def _spellings(text: str) -> set[str]:
    """Return the ways in which a text is squeezed into ASCII: ``Müller`` is written ``muller`` and ``mueller``."""
    return {_squeeze(text), _squeeze(unicodedata.normalize("NFC", text).casefold().translate(_DIGRAPHS))}


def _words(text: str) -> list[str]:
    """Return the runs of letters of a text, squeezed."""
    return [_squeeze(word) for word in re.findall(r"[^\W\d_]+", text)]


def _is_in(needle: str, haystacks: set[str], numbers: set[str]) -> bool:
    if needle.isdigit() and len(needle) < _MIN_NUMBER:
        return needle.lstrip("0") in numbers
    return any(needle in haystack for haystack in haystacks)


def _date_spellings(date: str) -> Iterable[str]:
    digits = re.sub(r"\D", "", date)
    if len(digits) != len("YYYYMMDD"):
        return ()
    year, month, day = digits[:4], digits[4:6], digits[6:]
    return (digits, day + month + year, month + day + year, year[2:] + month + day, day + month + year[2:], month + day + year[2:])
