"""Lambda processes the stream: functions that its event source and a schedule invoke.

``processor.handler`` applies batches, ``tick.handler`` lets idle time pass. What they do is in `shards` and in
`streamgauge.processors.hosts.ticks`, without AWS's libraries; the handlers put Powertools around it. The reasons are in
``docs/adr/0019-lambda-host.md``.
"""
