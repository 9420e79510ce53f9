"""What every room shares: records, errors, config, seeds. Knows nobody."""
