//! `wherry image`: the images on this machine's nodes, and registries.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use wherry_images::{Images, Options, Progress, Step};
use wherry_runtime::ImageKind;

use crate::data_dir::DataDir;

/// Load, push and list images: Wasm modules and components, and OCI images.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Give the nodes of this machine an image from a file, without a registry.
    ///
    /// FILE is a .wasm module or component, an OCI layout as a tar, or what `docker save` writes. Pods that name
    /// REF run it; let their imagePullPolicy be IfNotPresent or Never.
    Load(Move),
    /// Push an image from a file to a registry.
    ///
    /// A .wasm file becomes a CNCF Wasm OCI artifact.
    Push(Move),
    /// List the images on this machine's nodes.
    Ls {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Move {
    /// A .wasm file, or a tar of an OCI layout or of `docker save`.
    file: PathBuf,
    /// The image's reference, for example localhost:5000/hello:1.
    #[arg(value_name = "REF")]
    reference: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The cluster's directory [default: wherry in the user's data directory]
    #[arg(long, value_name = "DIR", env = "WHERRY_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl Place {
    fn open(self) -> anyhow::Result<Images> {
        let dir = DataDir::resolve(self.data_dir)?;
        let options = Options { registries: dir.registries(), ..Options::default() };
        Ok(Images::open(dir.images(), options)?)
    }
}

impl Image {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        crate::parts::install_crypto();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match self {
            Self::Load(Move { file, reference, place }) => {
                let image = runtime.block_on(place.open()?.load(&file, &reference, Bars::new()))?;
                println!("loaded {} ({})", image.reference, image.id);
            }
            Self::Push(Move { file, reference, place }) => {
                let images = place.open()?;
                let pushed = runtime.block_on(images.push(&file, &reference, None, Bars::new()))?;
                println!("pushed {pushed}");
            }
            Self::Ls { place } => list(&place.open()?).context("cannot list the images")?,
        }
        Ok(())
    }
}

fn list(images: &Images) -> anyhow::Result<()> {
    let rows: Vec<[String; 4]> = images
        .list()?
        .into_iter()
        .map(|image| {
            let name = image.references.first().cloned().unwrap_or_default();
            let digest = image.id.rsplit_once("sha256:").map_or("", |(_, hex)| hex);
            let kind = match image.kind {
                ImageKind::Wasm => "wasm",
                ImageKind::Container => "container",
            };
            [name, digest.chars().take(12).collect(), kind.to_owned(), HumanBytes(image.size).to_string()]
        })
        .collect();
    let header = ["IMAGE", "DIGEST", "KIND", "SIZE"].map(str::to_owned);
    let width = |column: usize| rows.iter().chain([&header]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for [name, digest, kind, size] in [&header].into_iter().chain(&rows) {
        println!("{name:a$}   {digest:b$}   {kind:c$}   {size}", a = widths[0], b = widths[1], c = widths[2]);
    }
    Ok(())
}

/// Progress bars on standard error, one a blob.
struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn new() -> Arc<Self> {
        Arc::new(Self { all: MultiProgress::new(), bars: Mutex::default() })
    }
}

impl Progress for Bars {
    fn step(&self, step: Step<'_>) {
        let Step::Blob { digest, done, total } = step else { return };
        let Ok(mut bars) = self.bars.lock() else { return };
        let bar = bars.entry(digest.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
            let bar = self.all.add(ProgressBar::new(total));
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.set_prefix(digest.trim_start_matches("sha256:").chars().take(12).collect::<String>());
            bar
        });
        bar.set_position(done);
        if done == total {
            bar.finish();
        }
    }
}
