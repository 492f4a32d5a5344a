//! wherry-reconcile
