"""Hops 5 to 8 on other hosts: jobs go out by a broker, results come back over the shared storage.

A node computes and writes into a folder of its own on the share; only the watcher, which holds
the journal, ever makes a result visible. So a node that is late, frozen or forgotten can waste
time, and nothing else. The broker is a transport: what it loses is sent again. Nothing here is
imported, and dramatiq neither, unless some hot folder says `where: fleet`.
"""
