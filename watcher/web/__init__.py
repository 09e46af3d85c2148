"""The page, the API and the numbers: a process of its own, without which mattes continue.

Touches the journal (to read, admit, retry, pause and judge), the daemon's snapshot (to read),
hot folders (to drop uploads), output folders (to read what was published), and its keys. Never
imports pipeline, engine or intake.
"""
