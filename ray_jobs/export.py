"""Take the encoder of a pre-training run away, as a plain state_dict that other code can load."""

import argparse
import sys
from collections.abc import Sequence

from echotrain.errors import EchotrainError
from echotrain.log import setup_logging
from echotrain.training.export import export_encoder

EXAMPLES = """examples:
  python -m ray_jobs.export runs/mae --to encoder.pt
  python -m ray_jobs.export s3://lab/runs/mae --to s3://lab/encoders/mae.pt --checkpoint latest
  python -m ray_jobs.filter s3://lab/mosaic --name knee-like --anatomies knee --embedder vit --weights s3://lab/encoders/mae.pt

The tensors have the names that timm gives a ViT; torch.load(..., weights_only=True) reads them. Their shape lies beside them as .json.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Export, and say where to."""
    options = parser().parse_args(argv)
    setup_logging()
    try:
        print(export_encoder(options.run, options.to, options.checkpoint))
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; nothing is read yet."""
    verb = argparse.ArgumentParser(
        prog="python -m ray_jobs.export", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.add_argument("run", metavar="RUN", help="folder or s3:// prefix of a run")
    verb.add_argument("--to", required=True, metavar="URI", help="file to write, ending in .pt")
    verb.add_argument("--checkpoint", default="best", help="best, latest, or one by its name (default: %(default)s)")
    return verb


if __name__ == "__main__":
    sys.exit(main())
