"""A restore as a page that one looks at: what it did, when, where and how fast.

A recording is everything that the daemon has on record of one restore, in the words of
org.lazypages.Manager; the page is a function of it alone, and needs nothing else to be seen.
"""
