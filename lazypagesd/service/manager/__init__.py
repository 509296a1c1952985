"""org.lazypages.Manager: what the daemon does, for whom, and orders to it.

Everything is told by the interface file beside this package.  A module is what one kind of
question takes; views.py has the words of the interface, and nobody else.
"""
