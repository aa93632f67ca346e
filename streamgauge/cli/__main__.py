"""``python -m streamgauge.cli``: how the local stack starts its own processes."""

from streamgauge.cli.app import main

main()
