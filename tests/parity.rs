//! One table of scenarios, run with echo in both kinds: the sequences seen through the API are equal.
