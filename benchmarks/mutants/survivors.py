"""Print every mutant of the project in the current folder that no test noticed, one JSON a line.

Run in the folder that mutmut worked in, whose settings it reads from there.
"""

from __future__ import annotations

import json
from pathlib import Path

from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files


def main() -> None:
    """Every mutant with its status; what it changes only of those that were not noticed."""
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        for name, code in data.exit_code_by_key.items():
            status = status_by_exit_code[code]
            found = {"name": name, "status": status, "before": "", "after": ""}
            if status in ("survived", "no tests"):
                found |= _change(name, path)
            print(json.dumps(found))


def _change(name: str, path: Path) -> dict[str, str]:
    """The lines that a mutant takes away, and those in their place."""
    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    return {
        key: " ".join(line[1:].strip() for line in lines if line.startswith(sign))
        for key, sign in (("before", "-"), ("after", "+"))
    }


if __name__ == "__main__":
    main()
