//! The queue's figures for `/metrics`.

use metrics::{counter, gauge};
use toolmesh_core::queue::{Machine, Now, QueueView};

/// Publishes how the queue is at this moment.
pub(super) fn publish(machine: &Machine, now: Now) {
    let QueueView { counts, oldest, workers, .. } = machine.status(now);
    let states = [
        ("queued", counts.queued),
        ("delayed", counts.delayed),
        ("running", counts.running),
        ("completed", counts.completed),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
    ];
    for (state, count) in states {
        gauge!("toolmesh_queue_tasks", "state" => state).set(figure(count as u64));
    }
    counter!("toolmesh_queue_submitted_total").absolute(counts.submitted_total);
    let ended = [
        ("completed", counts.completed_total),
        ("failed", counts.failed_total),
        ("cancelled", counts.cancelled_total),
    ];
    for (state, total) in ended {
        counter!("toolmesh_queue_ended_total", "state" => state).absolute(total);
    }
    counter!("toolmesh_queue_retried_total").absolute(counts.retried_total);
    counter!("toolmesh_queue_leases_lost_total").absolute(counts.lost_total);
    let age = oldest.map_or(0, |oldest| now.ms.saturating_sub(oldest) / 1_000);
    gauge!("toolmesh_queue_oldest_seconds").set(figure(age));
    gauge!("toolmesh_queue_workers").set(figure(workers as u64));
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn figure(count: u64) -> f64 {
    count as f64
}
