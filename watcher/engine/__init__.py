"""Engine: owns worker processes and talks to them; finds and verifies weights.

May touch: child processes, shared memory, the weights cache, entry-point metadata.
Must never: import an engine module or an ML framework, read an image, know the journal.
"""
