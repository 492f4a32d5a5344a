//! `wherry image`: the images on this machine's nodes, and registries.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use wherry_images::{Auth, ImageError, Images, Options, Progress, Step};
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
    /// A .wasm file becomes a CNCF Wasm OCI artifact. A registry that wants a password gets what `docker login` left in
    /// config.json (in DOCKER_CONFIG or ~/.docker), or what `configs` in the data directory's registries.yaml says.
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
    /// The cluster's images; `make`: also where there is none yet.
    fn open(self, make: bool) -> anyhow::Result<Images> {
        let dir = if make { DataDir::resolve(self.data_dir)? } else { DataDir::find(self.data_dir)? };
        if !dir.path().is_dir() {
            bail!(
                "there is no cluster in {}: start one with `wherry up`, or name its directory with --data-dir",
                dir.path().display()
            );
        }
        Ok(Images::open(dir.images(), crate::parts::images(&dir))?)
    }

    /// Images for a moment, with what the cluster knows of registries; they go with the directory.
    fn passing(self) -> anyhow::Result<(Images, tempfile::TempDir)> {
        let options = Options { registries: DataDir::find(self.data_dir)?.registries(), ..Options::default() };
        let dir =
            tempfile::Builder::new().prefix("wherry-push").tempdir().context("cannot make a temporary directory")?;
        Ok((Images::open(dir.path(), options)?, dir))
    }
}

impl Image {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        crate::parts::install_crypto();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match self {
            Self::Load(Move { file, reference, place }) => {
                let image = runtime.block_on(place.open(true)?.load(&file, &reference, Bars::new()))?;
                crate::say(&format!("loaded {} ({})\n", image.reference, image.id))?;
            }
            Self::Push(Move { file, reference, place }) => {
                let (images, _dir) = place.passing()?;
                let pushed = runtime.block_on(images.push(&file, &reference, credentials(&reference)?, Bars::new()));
                let pushed = match pushed {
                    Err(error @ ImageError::Unauthorized { .. }) => {
                        return Err(anyhow::Error::new(error).context("log in first, for example with `docker login`"));
                    }
                    pushed => pushed?,
                };
                crate::say(&format!("pushed {pushed}\n"))?;
            }
            Self::Ls { place } => list(&place.open(false)?).context("cannot list the images")?,
        }
        Ok(())
    }
}

/// What `docker login` knows of the image's registry; none where it was never used.
fn credentials(reference: &str) -> anyhow::Result<Option<Auth>> {
    let home = || Some(etcetera::home_dir().ok()?.join(".docker"));
    let Some(dir) = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from).or_else(home) else { return Ok(None) };
    let path = dir.join("config.json");
    let config = match std::fs::read(&path) {
        Ok(config) => config,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    Auth::from_docker_config(&config, &reference.parse()?).with_context(|| path.display().to_string())
}

fn list(images: &Images) -> anyhow::Result<()> {
    let mut rows: Vec<[String; 4]> = images
        .list()?
        .into_iter()
        .flat_map(|image| {
            let digest = image.id.rsplit_once("sha256:").map_or("", |(_, hex)| hex);
            let kind = match image.kind {
                ImageKind::Wasm => "wasm",
                ImageKind::Container => "container",
            };
            let (digest, size) = (digest.chars().take(12).collect::<String>(), HumanBytes(image.size).to_string());
            // Tags come first; a digest is shown where it is the only name.
            let tags = image.references.iter().filter(|name| !name.contains('@')).count().max(1);
            image
                .references
                .into_iter()
                .take(tags)
                .map(move |name| [name, digest.clone(), kind.to_owned(), size.clone()])
        })
        .collect();
    rows.sort();
    let header = ["IMAGE", "DIGEST", "KIND", "SIZE"].map(str::to_owned);
    let width = |column: usize| rows.iter().chain([&header]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let lines = [&header].into_iter().chain(&rows).map(|[name, digest, kind, size]| {
        format!("{name:a$}   {digest:b$}   {kind:c$}   {size}\n", a = widths[0], b = widths[1], c = widths[2])
    });
    crate::say(&lines.collect::<String>())?;
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
