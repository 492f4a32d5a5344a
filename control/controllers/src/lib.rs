//! wherry-controllers
