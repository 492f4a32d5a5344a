//! A Deployment changes between container and component under load; several nodes; names.
