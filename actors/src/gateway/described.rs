//! What `/metrics` says of each figure, in the words of docs/operations.md.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// Figures that only rise.
const COUNTERS: [(&str, &str); 16] = [
    ("toolmesh_calls_total", "Calls by how they ended."),
    ("toolmesh_link_restarts_total", "Sessions of the upstream that ended by themselves."),
    ("toolmesh_queue_submitted_total", "Tasks handed over since the start."),
    ("toolmesh_queue_ended_total", "Tasks ended since the start."),
    ("toolmesh_queue_retried_total", "Attempts that were followed by another."),
    ("toolmesh_queue_leases_lost_total", "Leases that were lost."),
    ("toolmesh_sessions_evicted_total", "Idle sessions that made room for new ones."),
    ("toolmesh_http_refused_total", "Requests that the guard refused."),
    ("toolmesh_progress_dropped_total", "Progress that a slow client did not take in time."),
    ("toolmesh_upstream_garbage_total", "Lines of stdio servers that are no messages."),
    ("toolmesh_mesh_calls_total", "Calls of other nodes by who asked and how they ended."),
    ("toolmesh_mesh_announcements_total", "Announcements of work, sent and heard."),
    ("toolmesh_mesh_connections_refused_total", "Connections of other nodes beyond the limits."),
    ("toolmesh_mesh_joins_refused_total", "Joins that were refused."),
    ("toolmesh_mesh_streams_refused_total", "Streams of other nodes beyond the limits."),
    ("toolmesh_actor_panics_total", "Defects; please report them."),
];

/// Figures that rise and fall.
const GAUGES: [(&str, &str); 12] = [
    ("toolmesh_link_state", "1 for the state the upstream is in, 0 for the others."),
    ("toolmesh_link_in_flight", "Calls under way."),
    ("toolmesh_tools", "Tools in the catalogue."),
    ("toolmesh_sessions", "Sessions of the older revisions of MCP."),
    ("toolmesh_queue_tasks", "Tasks by state."),
    ("toolmesh_queue_oldest_seconds", "Since the oldest waiting task was submitted."),
    ("toolmesh_queue_workers", "Workers that are there."),
    ("toolmesh_store_bytes", "What the store takes on disk."),
    ("toolmesh_store_waiting", "Changes that wait to be committed."),
    ("toolmesh_mesh_peers", "Nodes that are connected, strangers too."),
    ("toolmesh_mesh_members", "Members that are connected."),
    ("toolmesh_mesh_sessions", "Sessions that other nodes have here."),
];

/// Figures that are times.
const HISTOGRAMS: [(&str, &str); 2] = [
    ("toolmesh_call_seconds", "Time of calls."),
    ("toolmesh_store_sync_seconds", "Time of each sync of the disk."),
];

/// Tells the recorder of this process what its figures are.
pub(super) fn describe() {
    for (name, text) in COUNTERS {
        describe_counter!(name, text);
    }
    for (name, text) in GAUGES {
        describe_gauge!(name, text);
    }
    for (name, text) in HISTOGRAMS {
        describe_histogram!(name, text);
    }
}
