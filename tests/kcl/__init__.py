"""The real KCL daemon against the local stack."""
