"""What a function does with tensors, recorded while it runs once. It knows nothing of programs."""
