"""Processes that rearrange their memory in every way while it is being filled.

``python -m tests.torture`` runs rounds of them; what each checks is in torture.h.
"""
