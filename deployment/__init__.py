"""Where pipelines run and models live: stacks, registry, ledger."""
