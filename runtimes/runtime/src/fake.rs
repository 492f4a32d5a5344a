//! A runtime without workloads, for tests of the agent.
