//! The workload controllers as a user knows them: the real binary, kubectl, Pods of both kinds by the same steps.
//!
//! Most of it are the tutorials and tasks of the Kubernetes documentation, with manifests of our own ([`lesson`]).

#[path = "workloads/autoscaling.rs"]
mod autoscaling;
#[path = "workloads/budgets.rs"]
mod budgets;
#[path = "workloads/crons.rs"]
mod crons;
#[path = "workloads/daemons.rs"]
mod daemons;
#[path = "workloads/drain.rs"]
mod drain;
#[path = "workloads/ensemble.rs"]
mod ensemble;
#[path = "workloads/external.rs"]
mod external;
#[path = "workloads/jobs.rs"]
mod jobs;
#[path = "workloads/lesson.rs"]
mod lesson;
#[path = "workloads/preemption.rs"]
mod preemption;
#[path = "workloads/ring.rs"]
mod ring;
#[path = "workloads/sets.rs"]
mod sets;
#[path = "workloads/setting.rs"]
mod setting;
#[path = "workloads/waking.rs"]
mod waking;
