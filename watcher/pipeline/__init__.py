"""Pipeline: turns one admitted job into published files.

May touch: the source (read), the output folder (write), the cache of answers; `retire` alone moves or deletes a source.
Must never: know the journal, import an ML framework, catch an error to carry on.
"""
