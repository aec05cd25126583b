"""Files that users write: finding them, reading YAML, checking fields, measured tables."""
