//! Deployments as a user knows them: rollouts that no client notices, Pods of both kinds on several nodes, and what is
//! left after a deletion: nothing.

#[path = "rollout/density.rs"]
mod density;
#[path = "rollout/garbage.rs"]
mod garbage;
#[path = "rollout/load.rs"]
mod load;
#[path = "rollout/netns.rs"]
mod netns;
#[path = "rollout/nodes.rs"]
mod nodes;
#[path = "rollout/setting.rs"]
mod setting;
#[path = "rollout/switch.rs"]
mod switch;
#[path = "rollout/verbs.rs"]
mod verbs;
