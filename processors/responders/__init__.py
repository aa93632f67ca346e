"""What acts on threshold events: at most once for each, and never on one that a later one has overtaken."""
