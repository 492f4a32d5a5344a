//! wherry-scheduler
