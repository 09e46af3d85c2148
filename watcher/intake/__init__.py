"""Intake: notices files and admits the settled ones.

May touch: the hot folders (stat, listdir, the first and last bytes of a candidate), Journal.admit.
Must never: decode a source, move a file, wait in a watchdog callback.
"""
