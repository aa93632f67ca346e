"""Own delivery: raw events to Parquet objects with positions."""
