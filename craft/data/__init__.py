"""Craft."""
