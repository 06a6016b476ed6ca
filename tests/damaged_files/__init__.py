"""Every reader on thousands of damaged files: a result or one clear line, and nothing else.

Nothing hangs, fills the memory, writes to what it reads or opens what lies beside it. ``make test``
takes a few hundred files; the slow tests take thousands of others.
"""
