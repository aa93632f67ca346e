"""The function's package: what Lambda unpacks and runs. See ``docs/adr/0021-lambda-package.md``."""
