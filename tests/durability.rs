//! kill -9 under a writing load, damaged files, stop and start: nothing acknowledged is lost, nothing is left behind.
