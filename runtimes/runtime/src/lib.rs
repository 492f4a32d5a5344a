//! wherry-runtime
