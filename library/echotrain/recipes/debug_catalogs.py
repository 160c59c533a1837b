"""Where recipes look for data that is simulated for them; by itself quick to import, as every recipe does."""

__all__ = ["CINE_CATALOG", "DEBUG_CATALOG", "STUDY_CATALOG", "ensure_data"]

# Where the debug recipes look for data, unless data.catalog= says otherwise; relative to the working directory.
DEBUG_CATALOG = "build/debug/prepared"
# Where those of k-t data do.
CINE_CATALOG = "build/debug-cine/prepared"
# Where the simulated edition of the study does.
STUDY_CATALOG = "build/study/prepared"


def ensure_data(catalog: str) -> None:
    """Make what a debug recipe looks for, unless it is there; any other catalog is left to whoever named it."""
    if catalog in (DEBUG_CATALOG, CINE_CATALOG):
        # What simulates scans takes half a second to import, which no other run is to wait for.
        from echotrain.recipes import debug_data

        {DEBUG_CATALOG: debug_data.ensure_debug_data, CINE_CATALOG: debug_data.ensure_cine_data}[catalog]()
