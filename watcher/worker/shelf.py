"""What an engine made of its weights, kept beside them and taken only if it is whole. Python 3.7 syntax."""

import glob
import hashlib
import os
import tempfile
from typing import Optional

_DIGEST_BYTES = hashlib.sha256().digest_size


class Shelf:
    """The place for what `made_by` (a name with its version) makes of the file at `model`, as it is now.

    `sha256`: of that file, in hexadecimal, where somebody has verified it; None: it is read for that.
    """

    def __init__(self, model: str, made_by: str, sha256: Optional[str] = None) -> None:
        self._folder, name = os.path.split(os.path.abspath(model))
        digest = sha256 or _sha256_of(model)
        # Hidden: a folder of weights may be a person's own.
        self._all = ".{}-for-".format(name)
        self._name = "{}{}-{}".format(self._all, made_by, digest[:16])

    def take(self) -> Optional[bytes]:
        """What is kept; None where that is nothing, or not all of it."""
        try:
            with open(os.path.join(self._folder, self._name), "rb") as file:
                kept = file.read()
        except OSError:
            return None
        made, digest = kept[:-_DIGEST_BYTES], kept[-_DIGEST_BYTES:]
        return made if hashlib.sha256(made).digest() == digest else None

    def put(self, made: bytes) -> None:
        """Keep it, in place of what was made for others or of other weights. Where we may not write, nothing is kept."""
        try:
            handle, temporary = tempfile.mkstemp(prefix=self._name + ".", dir=self._folder)
            with os.fdopen(handle, "wb") as file:
                file.write(made + hashlib.sha256(made).digest())
            for old in glob.glob(os.path.join(glob.escape(self._folder), glob.escape(self._all) + "*")):
                if old != temporary:
                    os.unlink(old)
            os.replace(temporary, os.path.join(self._folder, self._name))
        except OSError:
            # A full disk leaves a part under a name that nobody reads; the next one to keep something removes it.
            pass


def _sha256_of(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
