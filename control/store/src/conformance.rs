//! What every [`Store`](crate::Store) must do, as tests that take the store to test.
