"""Where bytes come from: files that are read a page, or many, at an offset.

The data plane reads a source by its descriptor; what Python decides is which descriptor, and how
it may be read without waiting (see lazypagesd/native/source.c).
"""
