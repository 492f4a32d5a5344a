//! The node agent.
mod lifecycle;
mod logs;
