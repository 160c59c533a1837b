"""What is asked for: each maps its items over workers, or trains."""
