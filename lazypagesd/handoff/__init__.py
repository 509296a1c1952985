"""How sessions arrive: one protocol a file.

Each protocol is a small state machine that is fed what recvmsg() brought, and a coroutine that
feeds it.
"""
