"""The island. Runs under any Python >= 3.7, by path, next to one ML framework.

May import: the standard library, numpy, its own framework, its own siblings.
Must never: import anything from watcher, write files, survive its parent.
"""
