"""How fast the daemon is, beside others that do the same: ``make bench``.

A *case* is a row of docs/explanation/performance.md: a function of a `Bench` that lets ours and
each rival run in turns (`race`), and says what is to be reached.  To add one, write the function
in a module of cases/, give it a name and a sentence there, and put that module's CASES into
cases/__init__.py; the table, the JSON, the charts and the smoke test take it from there.

    bench      where it all runs: a directory, the compiled programs, CRIU, large or small
    layout     the memory: where pages lie, in how many regions and sessions; its images
    handlers   who answers the faults: lazypagesd, criu lazy-pages, bare.c
    scenes     a process that is restored, by CRIU or through its hand-off, and touches pages
    race       turns, ratios, and what is to be reached
"""
