"""Linux as Python values: userfaultfd and descriptor passing.

Some facts about descriptors that come over a unix socket: the kernel installs them while recvmsg()
runs, so what is received is owned at once and must be closed by somebody, whatever else is wrong
with the message; with MSG_CMSG_CLOEXEC they are closed on exec; a control buffer that is too small
drops them, and sets MSG_CTRUNC. With SO_PASSCRED and SO_PASSPIDFD (Linux 6.5) each message says
who sent it, in the receiver's terms.
"""
