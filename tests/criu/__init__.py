"""Real processes and a real CRIU, with our daemon in the place of ``criu lazy-pages``.

CRIU is ``$CRIU``, .build/criu/criu (put there by tests/setup/get-criu.sh) or the one in PATH.
With ``LAZYPAGESD_TEST_LAZY_PAGES='criu lazy-pages'`` the same tests run against CRIU's own daemon,
without those that it is known to fail; each of them says how.
"""
