//! wherry-network
