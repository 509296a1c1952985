"""The one exception of the demo."""

from __future__ import annotations


class Trouble(Exception):
    """Something that ends the demo; the message says what, and what to do."""
