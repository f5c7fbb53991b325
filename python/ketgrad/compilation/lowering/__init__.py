"""The trace of a function that returns tapes becomes a plan: native calls and the Python code around them."""
