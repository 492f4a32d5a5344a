//! wherry-agent
