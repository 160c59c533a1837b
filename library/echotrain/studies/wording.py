"""How tables of a study are read, in words that its sections share."""

__all__ = ["PAIRED", "SPREAD"]

SPREAD = "Mean ± standard deviation over volumes."
PAIRED = (
    "Mean paired difference over volumes with its 95% bootstrap interval below; p of Wilcoxon’s signed-rank test, not corrected for the "
    "number of tests, and – where there are fewer than six volumes."
)
