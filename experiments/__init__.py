"""Experiments: one file a claim, each a typed value that becomes a command line."""
