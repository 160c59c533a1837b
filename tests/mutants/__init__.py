"""What the chart, the ground and the launcher are tested with: an API server, the tools, the CRDs, strict validation, policies."""
