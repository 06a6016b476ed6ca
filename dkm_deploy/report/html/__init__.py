"""The HTML views: one page each that needs no network and no script."""
