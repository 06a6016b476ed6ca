"""A pytest plugin: locks of its own for each process that mutmut forks.

tqdm, which torch's exporter shows progress with, shares one lock among processes. A mutant that is
killed while it holds that lock would keep all later ones waiting: none of these would be tried, and
each would count as noticed.
"""

from __future__ import annotations

import threading

from tqdm import tqdm  # type: ignore[import-untyped]

tqdm.set_lock(threading.RLock())
