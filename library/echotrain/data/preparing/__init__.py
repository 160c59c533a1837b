"""From scanner files to the next version of a catalog."""
