//! wherry-server
