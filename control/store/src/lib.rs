//! wherry-store
