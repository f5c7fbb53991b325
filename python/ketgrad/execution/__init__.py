"""Tapes are executed: structures become native programs, tapes of one structure become one call."""
