"""Print the paths of image archives; what is missing is made first."""

from __future__ import annotations

import argparse
import sys

from tests.images import NAMES, ImageError, archive


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.images", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", default=NAMES, help=f"of {', '.join(NAMES)}; without one, all")
    names = parser.parse_args().names
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        parser.error(f"no image is called {unknown[0]!r}; there are {', '.join(NAMES)}")
    try:
        for name in names:
            sys.stdout.write(f"{archive(name)}\n")
    except ImageError as error:
        sys.stderr.write(f"tests.images: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
