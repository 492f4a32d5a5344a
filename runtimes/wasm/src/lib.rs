//! wherry-wasm
