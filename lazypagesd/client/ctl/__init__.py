"""The command ``lazypagesctl``, which asks a daemon that runs."""
