"""Many scenarios: grids, jobs, tables, Parquet folders, and the best of them."""
