"""Circuits as data: operations, observables and measurements on wires, and tapes of them. Plain Python, no kernels."""
