"""``python -m gpucalcium.accel script.py arguments``: run a script on this library, unmodified."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from gpucalcium import accel


def main(arguments: list[str]) -> None:
    """Run a script, or ``-m module``, as Python itself would, with the documented names served."""
    parser = argparse.ArgumentParser(
        prog="python -m gpucalcium.accel",
        usage="%(prog)s script.py [arguments]\n       %(prog)s -m module [arguments]",
        description="Run a script that imports caiman on gpucalcium, without changing it.",
    )
    if not arguments:
        parser.error("name a script to run")
    if arguments[0] in ("-h", "--help"):
        parser.parse_args(["--help"])
    if arguments[0] == "-m":
        if len(arguments) < 2:
            parser.error("name a module after -m")
        sys.argv[:] = arguments[1:]
        accel.install()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    script = Path(arguments[0])
    if not script.is_file():
        parser.error(f"there is no script {script}")
    sys.argv[:] = arguments
    sys.path[0] = str(script.resolve().parent)
    accel.install()
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
