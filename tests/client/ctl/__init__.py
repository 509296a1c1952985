"""Tests of the command ``lazypagesctl``."""
