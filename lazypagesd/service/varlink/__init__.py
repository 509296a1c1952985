"""Varlink: how programs and people ask the daemon what it does.

Some facts (https://varlink.org): a connection is a stream of messages either way, each a JSON
object and a zero byte.  A call is {"method": "INTERFACE.METHOD", "parameters": {...}}, and has one
reply, {"parameters": {...}} or {"error": "INTERFACE.ERROR", "parameters": {...}}.  With "more":
true several replies are asked for, of which all but the last have "continues": true; with
"oneway": true none.  Calls may follow each other at once, and are answered in their order.  Every
service answers org.varlink.service, which tells of itself and its interfaces.
"""
