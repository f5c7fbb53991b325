"""Lowering of the trace of a function that returns tapes to a plan: native calls, and the Python code around them."""
