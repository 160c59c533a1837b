"""Which row comes when, and on which rank: pure functions."""
