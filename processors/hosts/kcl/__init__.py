"""The KCL host: the MultiLangDaemon of the Amazon KCL, with a process of ours as the child that works on a shard."""
