"""The command ``lazypagesctl``, which asks a daemon that runs.

Some facts about CRIU that it rests on (4.1.1, and 4.2's source):

- ``criu restore`` goes to its work directory, and connects to the relative name lazy-pages.socket.
  So the path of that directory may be longer than a socket's address (man 7 unix).
- It connects once, before it makes any process, and fails at once where nothing listens.
- Of an option that is given twice it takes the last.  A long one may be abbreviated.
- Without ``-d`` it stays for as long as what it has restored lives.
"""
