"""What runs on Ray: connecting, workers, signals, progress, and one function over many items."""
