"""Measures Deed, alone and beside other systems, and writes what was measured."""
