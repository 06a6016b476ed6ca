"""Views of a report: a page and a terminal table. They read only the report's plain values."""
