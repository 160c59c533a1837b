"""What a protocol's name says of a scan that is not an image to learn from; enumerated words come out, the name never.

The groups are those that MosaicMRI's authors left out by name (``clean_data`` of AIF4S/mosaicmri), with other scanners' spellings. Theirs
match anywhere in a file's name; here a spelling is a word of its own, so that no "local" is a localizer.
"""

import re

from echotrain.data.formats.vocabulary import Vocabulary, plain

__all__ = ["MOSAIC_KINDS", "PROTOCOL_KINDS", "protocol_kinds"]

_SPELLINGS = {
    "localizers": "loc, ~ploc, ~plane loc, localizer, localizers, localiser, localisers, locator, lokalizer, lokaliser, lokalisator, pilot,"
    "survey~, coil survey~, ~scout, ~scouts, uof",
    "adjustments": "adj, adjust, adjustment, adjustments, adj quiet~, adj coil~, adj sens~, adj gre~, adj fre~, adj xfre~, adj shim~,"
    "adj trf~, adj tra~, adj water~, adj flow~, adj dico~, adj b0~, adj b1~, pre scan, shim, coil sens~, ref scan, sense ref~,"
    "calib, calibration, asset cal, array cal, noise adj~, noise scan",
    "phantoms": "phantom, phantoms, phant, acr, qc, qa, test, springbok, site t1, site t2",
    "semac": "semac, mavric, mavric sl",
    "dess": "dess, qdess, de3d, 3d dess",
    "vibe": "vibe, star vibe, lava, thrive",
    "in-out-phase": "in phase, in phases, out phase, out of phase, opp phase, opposed phase, in opp, in opp phase, in opposed phase,"
    "in out phase, in out of phase, in and out of phase, in and opposed phase, in and opp phase",
    "bone-mri": "bonemri, bone_mri, bone-mri",
    "radial": "radial, ute, zte, petra, stack of stars",
    "propeller": "blade, propeller, multi vane",
    # Anatomy, not trajectory.
    "": "radial head, radial neck, radial nerve, radial collateral, radial side, radial styloid, radial fracture",
}
_VOCABULARY = Vocabulary(_SPELLINGS)
_OF_STUDIES = Vocabulary({"phantoms": "phantom, phantoms, acr, qc, springbok"})
# MosaicMRI's mark of tests and phantoms: a serial number.
_SERIAL = re.compile(r"_sn\d{0,12}(?![a-z0-9])")

PROTOCOL_KINDS = tuple(kind for kind in _SPELLINGS if kind)
# What is left out of MosaicMRI by name. Its authors also leave out files below 100 MB.
MOSAIC_KINDS = tuple(kind for kind in PROTOCOL_KINDS if kind != "propeller")


def protocol_kinds(name: str, study: str = "") -> tuple[str, ...]:
    """Return which of ``PROTOCOL_KINDS`` a scan is, in their order.

    Args:
        name: The protocol's own name, free text.
        study: What the study is called, free text: it speaks of all its scans, so it is asked for phantoms alone.
    """
    text = plain(name)
    found = {*_VOCABULARY.said(text), *_OF_STUDIES.said(plain(study)), *(("phantoms",) if _SERIAL.search(text) else ())}
    return tuple(kind for kind in PROTOCOL_KINDS if kind in found)
