"""Real processes and a real CRIU, with our daemon in the place of ``criu lazy-pages``."""
