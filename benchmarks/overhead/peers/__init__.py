"""The peers, a file each, set up as their documentation says; what would open a connection is replaced by nothing.

Spans, events and transactions are made and handed over on the request's thread as in production. What the thread that
sends them would do (encode, compress, send) is left out, for all of them alike.
"""
