//! wherry-api
