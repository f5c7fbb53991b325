"""Conversions between tapes and the circuits of other libraries, each in a module that imports its library."""
