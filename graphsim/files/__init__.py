"""Reading of files: catalogs, YAML with checked fields, measured tables, headers of checkpoints."""
