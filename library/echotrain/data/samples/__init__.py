"""What a step is made of: batches, and how their memory is filled."""
