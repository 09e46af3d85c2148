"""BSHM's old command, kept for the scripts that call it:

    python inference_bshm.py -i IMAGE_OR_URL -d DIR

It is `hotmatte matte` with that command's defaults: ./image-matting/1.png into ./results, and
the model BSHM. Where no BSHM weights are there it says so and uses the configured model, so
that both commands give the same files. Every option of `hotmatte matte` works.
"""

import argparse
import sys

from watcher import cli, config
from watcher.engine import weights
from watcher.engine.card import card_folders, load_card
from watcher.engine.weights import State
from watcher.errors import ConfigError

DEFAULT_INPUT = "./image-matting/1.png"
# The graph by TensorFlow first, as the old command ran it.
MODELS = ("bshm", "bshm-onnx")


def main(words: list[str]) -> int:
    """Exit status of `hotmatte matte`."""
    known = argparse.ArgumentParser(add_help=False)
    known.add_argument("inputs", nargs="*")
    known.add_argument("-i", "--input", action="append")
    known.add_argument("-d", "--output_dir", default="./results")
    known.add_argument("--model")
    known.add_argument("--profile")
    known.add_argument("--device")
    known.add_argument("--config")
    given, _ = known.parse_known_args(words)
    more = []
    if not given.inputs and not given.input and not {"-h", "--help"} & set(words):
        more += ["-i", DEFAULT_INPUT]
    if not given.model and not given.profile:
        more += _model(given.config)
    return cli.main(["matte", *more, *words])


def _model(path: str | None) -> list[str]:
    """`--model` and the BSHM that can run here; nothing where none can."""
    try:
        settings = config.load(config.Path(path) if path else config.find())
        cache = weights.cache_folder(settings.models.cache)
        for name in MODELS:
            card = load_card(name, card_folders(settings.models.cards))
            if weights.state(card, cache) in (State.OK, State.UNRECORDED, State.NOT_NEEDED):
                return ["--model", name]
    except ConfigError:
        return []  # `hotmatte matte` will say it, with every problem
    print(
        "inference_bshm.py: the weights of BSHM are not here, so the configured model is used. "
        "`hotmatte models pull bshm` fetches them (docs/bshm.md).",
        file=sys.stderr,
    )
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
