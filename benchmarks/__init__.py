"""What ``make bench`` runs.  Each benchmark is a module that measures two things or more in turn, in one run on one
server, and prints their rates and their ratios: rates depend on the machine, ratios much less.

``guarantee bench NAME``, and ``python -m benchmarks.NAME --help`` for what can be chosen.  Speed is never asserted; a
target is printed beside the ratio it is for.
"""

BENCHMARKS = {
    "commands": "commands of one event, decided and durably appended, against the eventsourcing package and pgbench",
    "http_commands": "commands by HTTP, against a route that does nothing",
    "rebuild": "a full rebuild of all read models, against COPY alone and the package's projection runner",
    "real_orders": "the import of real orders, against the package's saves one at a time",
    "freshness": "from the commit of an event until it is in the read models, against the package's wait",
    "growth": "rates and memory while the log grows: the same at a million events as at a hundred thousand",
}
"""The only list of benchmarks: name of the module, and what it measures."""
