"""Any ``nn.Module``, with palettes or without: its weights, hooks, copies and state."""
