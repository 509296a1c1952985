"""The installed service, run by a systemd that is process 1 of namespaces of its own."""
