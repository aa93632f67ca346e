"""One module per subcommand; each has a click command called `command`."""
