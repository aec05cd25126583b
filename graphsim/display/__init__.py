"""How numbers and operations look to people: tables, notebooks, plots, colours."""
