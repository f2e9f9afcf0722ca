"""Run every part, whatever becomes of the others, and sum up at the end.

    python tools/parts.py COMMAND PART ...     `COMMAND PART`, one after the other

Parts that are joined by a plus, as in `lint+test`, run side by side: what the last one
says is shown as it comes, what the others say when they are done. Exits with 1 if a
part failed.
"""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor


def run(command: str, part: str, held: bool) -> tuple[bool, float]:
    """Whether the part passed, and its seconds. What it says may be held to its end."""
    if not held:
        print(f"== {part}", flush=True)
    start = time.monotonic()
    out, err = (subprocess.PIPE, subprocess.STDOUT) if held else (None, None)
    done = subprocess.run([command, part], stdout=out, stderr=err)
    if held:
        print(f"== {part}\n{done.stdout.decode(errors='replace')}", end="", flush=True)
    return done.returncode == 0, time.monotonic() - start


def side_by_side(command: str, names: list[str]) -> dict[str, tuple[bool, float]]:
    with ThreadPoolExecutor(len(names)) as pool:
        held = [name != names[-1] for name in names]
        found = pool.map(run, [command] * len(names), names, held)
        return dict(zip(names, found, strict=True))


def main(command: str, *parts: str) -> int:
    """The exit status: 0 if all passed."""
    found: dict[str, tuple[bool, float]] = {}
    for group in parts:
        found |= side_by_side(command, group.split("+"))
    for part, (passed, seconds) in found.items():
        print(f"{part:14} {'passed' if passed else 'FAILED'} {seconds:6.0f} s")
    return not all(passed for passed, _ in found.values())


if __name__ == "__main__":
    # Ctrl-C ends this, too, at once and without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(*sys.argv[1:]))
