"""Tests of parsing and of the report. They measure nothing."""
