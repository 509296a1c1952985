"""CRIU's own tests, with lazypagesd in the place of ``criu lazy-pages``; `make zdtm` runs them.

They are many, and take long: no part of `make test`, which tests what is here alone.
"""
