"""Fetching models."""
