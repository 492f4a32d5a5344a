//! What is done on this machine for the guests: a component is made of a core module, and WIT is read.

use std::path::Path;

use anyhow::bail;
use wit_component::ComponentEncoder;
use wit_parser::Resolve;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["component", module, component] => encode(module, component),
        ["functions", directory] => functions(Path::new(directory)),
        _ => bail!("usage: pack component MODULE COMPONENT, or pack functions DIRECTORY"),
    }
}

fn encode(module: &str, component: &str) -> anyhow::Result<()> {
    let bytes = ComponentEncoder::default().validate(true).module(&std::fs::read(module)?)?.encode()?;
    Ok(std::fs::write(component, bytes)?)
}

/// Prints each function of a directory's packages after its interface: those that are stable.
fn functions(directory: &Path) -> anyhow::Result<()> {
    let mut wit = Resolve::default();
    wit.push_dir(directory)?;
    for (_, package) in wit.packages.iter() {
        for (name, interface) in &package.interfaces {
            for function in wit.interfaces[*interface].functions.keys() {
                println!("{}:{}/{name} {function}", package.name.namespace, package.name.name);
            }
        }
    }
    Ok(())
}
