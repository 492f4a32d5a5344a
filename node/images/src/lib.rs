//! wherry-images
