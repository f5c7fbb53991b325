"""Recording of what a function does with tensors in one run; independent of programs."""
