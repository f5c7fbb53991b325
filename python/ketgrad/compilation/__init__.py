"""Functions that return tapes become native calls: traced once per structure, without Python in later calls."""
