//! The workload controllers as a user knows them: the real binary, kubectl, Pods of both kinds by the same steps.

#[path = "workloads/autoscaling.rs"]
mod autoscaling;
#[path = "workloads/daemons.rs"]
mod daemons;
#[path = "workloads/drain.rs"]
mod drain;
#[path = "workloads/jobs.rs"]
mod jobs;
#[path = "workloads/preemption.rs"]
mod preemption;
#[path = "workloads/sets.rs"]
mod sets;
#[path = "workloads/setting.rs"]
mod setting;
#[path = "workloads/waking.rs"]
mod waking;
