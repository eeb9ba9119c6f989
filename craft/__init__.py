"""Craft: functional training of AI models, with and for small machines."""

__version__ = "0.1.0"
