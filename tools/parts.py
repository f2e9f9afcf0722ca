"""Run every part, whatever becomes of the others, and sum up at the end.

    python tools/parts.py COMMAND PART ...     `COMMAND PART`, one after the other

Exits with 1 if a part failed.
"""

import signal
import subprocess
import sys
import time


def run(command: str, part: str) -> tuple[bool, float]:
    """Whether the part passed, and its seconds."""
    print(f"== {part}", flush=True)
    start = time.monotonic()
    passed = subprocess.run([command, part]).returncode == 0
    return passed, time.monotonic() - start


def main(command: str, *parts: str) -> int:
    """The exit status: 0 if all passed."""
    found = {part: run(command, part) for part in parts}
    for part, (passed, seconds) in found.items():
        print(f"{part:14} {'passed' if passed else 'FAILED'} {seconds:6.0f} s")
    return not all(passed for passed, _ in found.values())


if __name__ == "__main__":
    # Ctrl-C ends this, too, at once and without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(*sys.argv[1:]))
