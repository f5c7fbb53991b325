"""How torch differentiates a native call: the derivative rule, and the ways in which torch applies it."""
