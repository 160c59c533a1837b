"""Anatomies as MosaicMRI groups them, and contrasts as families."""

__all__ = ["CONTRAST_FAMILIES", "anatomy_group", "contrast_family"]

# Source: MosaicMRI (arXiv:2604.11762), A.3, and its public notebooks for the femur. The rest of the anatomies are groups of their own.
_GROUPS = {
    "lower extremity": ("foot", "ankle", "calf", "lower", "femur"),
    "pelvic girdle": ("hip", "pelvis"),
    "upper extremity": ("elbow", "hand", "wrist", "finger", "upper"),
}
_GROUP_OF = {anatomy: group for group, anatomies in _GROUPS.items() for anatomy in anatomies}

# The paper's Figure 5; DESS, DIXON and the like are further families under their own names.
CONTRAST_FAMILIES = ("T1", "T1-FS", "T2", "T2-FS", "PD", "PD-FS", "STIR")


def anatomy_group(anatomy: str) -> str:
    """Return the group of an anatomy; one that is in none is its own."""
    return _GROUP_OF.get(anatomy, anatomy)


def contrast_family(contrast: str) -> str:
    """Return the family of a contrast, ``T2-FS`` of ``T2_FS``; what an injection adds does not make another family."""
    return contrast.replace("_POST", "").replace("_", "-")
