//! Broken and hostile modules end as an Event and a container state; no other Pod notices.
