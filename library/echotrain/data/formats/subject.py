"""What may be kept of a person: sex, an enumerated word, and weight in classes so wide that it points at nobody."""

import math

__all__ = ["SEXES", "WEIGHT_BINS_KG", "sex_of", "weight_bin_of"]

# ISMRMRD's patientGender. Converters write O for "not told" as well, so it says little.
SEXES = ("F", "M", "O")
# Lower ends; the first holds everybody below 50 kg, the last everybody of 120 kg and more: who weighs very little or much is rare.
WEIGHT_BINS_KG = tuple(range(40, 130, 10))

_WIDTH = 10
# Beyond what a scanner's table bears a number is none of a person.
_HEAVIEST = 350.0


def sex_of(text: str) -> str | None:
    """Return one of ``SEXES`` for the text of a header, or None where it says none of them."""
    word = text.strip().casefold()
    return {"f": "F", "female": "F", "m": "M", "male": "M", "o": "O", "other": "O"}.get(word)


def weight_bin_of(kilograms: float) -> int | None:
    """Return the lower end of the class of a weight, one of ``WEIGHT_BINS_KG``; None where the number is no weight."""
    if not math.isfinite(kilograms) or not 0 < kilograms <= _HEAVIEST:
        return None
    return min(max(int(kilograms // _WIDTH) * _WIDTH, WEIGHT_BINS_KG[0]), WEIGHT_BINS_KG[-1])
