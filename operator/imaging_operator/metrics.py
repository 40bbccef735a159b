"""What the operator counts; served as /metrics."""

from prometheus_client import Counter, Gauge, Histogram

RECONCILIATIONS = Counter("imaging_operator_reconciliations", "Passes over a resource", ["kind", "result"])
RECONCILE_SECONDS = Histogram(
    "imaging_operator_reconcile_seconds",
    "Duration of a pass",
    ["kind"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
ERRORS = Counter("imaging_operator_errors", "Passes that failed", ["kind", "reason"])
QUEUE_DEPTH = Gauge("imaging_operator_queue_depth", "Resources whose pass is due and has not begun")
LEADER = Gauge("imaging_operator_leader", "1 while this replica works, 0 while it waits")
RESOURCES = Gauge("imaging_operator_resources", "Resources seen at the last look at all of them", ["kind"])
API_REQUESTS = Counter(
    "imaging_operator_api_requests", "Requests to the API server, without watches", ["verb", "resource", "code"]
)
WATCH_RESTARTS = Counter("imaging_operator_watch_restarts", "Times that all watches were begun anew", ["why"])
EVENTS_SEEN = Counter("imaging_operator_watch_events", "Changes that watches reported", ["resource"])
