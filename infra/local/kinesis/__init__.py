"""Our own local Kinesis: one pure model, used directly by simulations and served to boto3 and the KCL over HTTP.

``model.py`` is the service as a pure object; ``server.py`` runs it, and holds `LocalKinesis` for tests. Records are
kept in memory only. Why there is one: ``docs/adr/0011-own-local-kinesis.md``.
"""
