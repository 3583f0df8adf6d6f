"""From drift to a new champion: one function that every trigger ends in, and its ledger."""
