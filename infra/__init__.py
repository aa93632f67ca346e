"""Infrastructure: the template, its deployment, and the local stack."""
