"""Who may ask: keys, what each may ask, and certificates."""
