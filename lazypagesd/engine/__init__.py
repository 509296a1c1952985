"""Sessions, the restores that they belong to, and the workers that serve them.

Some facts about who owns what: a worker, a thread inside lpd_worker_run() without the GIL, is the
only one that reads a session's descriptor or fills its pages. Python prepares a session's memory,
asks its worker for things (lpd_session_request) and takes what the worker reports (an eventfd,
then lpd_worker_take_report). Between attach and the worker's last word, which is that it is among
those of lpd_worker_take_detached(), nothing that a session points to may be freed or closed.
"""
