"""A deployment as a formula: recorded from its graph once, evaluated for any numbers."""
