"""Several engines behind one router."""
