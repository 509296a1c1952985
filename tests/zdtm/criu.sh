#!/bin/sh
# What zdtm takes for criu: $CRIU, except that lazy-pages is done by $LAZY_PAGES, which may be $CRIU, too.
# A daemon that never ends would stop the suite; like this only its test fails.
[ "$1" = lazy-pages ] || exec "$CRIU" "$@"
exec timeout --foreground --kill-after=5 60 "$LAZY_PAGES" "$@"
