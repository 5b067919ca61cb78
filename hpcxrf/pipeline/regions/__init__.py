"""Regions of interest: found, given, fitted again."""
