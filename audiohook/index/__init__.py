"""What is stored, so that it can be found: a table beside the recordings.

It is kept in SQLite in the spool's folder, and it is never the truth: all of it
is made of what the store holds, and can be made anew at any time.
"""
