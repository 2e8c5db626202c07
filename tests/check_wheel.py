"""Check that a wheel holds every module, grid and template of the tree, and nothing but aebench."""

import subprocess
import sys
import zipfile
from pathlib import Path


def main(wheel: str) -> None:
    root = Path(__file__).resolve().parent.parent
    patterns = ["*.py", "*.yaml", "benchmark/*.j2", "benchmark/*.css", "benchmark/*.js"]
    tracked = subprocess.run(
        ["git", "ls-files", *patterns], cwd=root, text=True, check=True, capture_output=True
    ).stdout.split()
    wanted = {f"aebench/{file}" for file in tracked if not file.startswith(("tests/", "results/"))}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if held != wanted:
        missing, extra = sorted(wanted - held), sorted(held - wanted)
        sys.exit(f"the wheel lacks {missing}; it holds {extra} too much")
    print(f"{wheel} holds all {len(held)} files")


if __name__ == "__main__":
    main(sys.argv[1])
