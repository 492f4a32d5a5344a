//! wherry-containers
