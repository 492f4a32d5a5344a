//! Unmodified kubectl of each version: every command of the issue, and the exact Status for bad input.
