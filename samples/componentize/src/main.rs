//! `componentize CORE.wasm COMPONENT.wasm`: the last step of building a sample.

use std::error::Error;
use std::fs;

use wit_component::ComponentEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [core, component] = arguments.as_slice() else {
        return Err("usage: componentize CORE.wasm COMPONENT.wasm".into());
    };
    let bytes = ComponentEncoder::default().validate(true).module(&fs::read(core)?)?.encode()?;
    fs::write(component, bytes)?;
    Ok(())
}
