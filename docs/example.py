"""Makes docs/example.jpg from a photo in tests/data with the installed software.

Run in a checkout after `make run` or `make test`:  .venv/bin/python docs/example.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
PHOTO = HERE.parent / "tests" / "data" / "astronaut.png"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "watcher", "matte", str(PHOTO), "-d", folder, "--quiet"]
        subprocess.run(command, check=True, cwd=HERE.parent)
        photo = Image.open(PHOTO).convert("RGB")
        matte = Image.open(Path(folder) / "astronaut.matte.png").convert("RGB")
        cutout = Image.open(Path(folder) / "astronaut.cutout.png")
        ramp = np.linspace(0, 1, photo.height)[:, None, None]
        sky = (1 - ramp) * np.array([250, 190, 120]) + ramp * np.array([70, 110, 160])
        scene = Image.fromarray(np.broadcast_to(sky, (photo.height, photo.width, 3)).astype(np.uint8))
        scene.paste(cutout, (0, 0), cutout)
    sheet = Image.new("RGB", (3 * photo.width + 32, photo.height), "white")
    for column, picture in enumerate((photo, matte, scene)):
        sheet.paste(picture, (column * (photo.width + 16), 0))
    sheet.save(HERE / "example.jpg", quality=90)


main()
