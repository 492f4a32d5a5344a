//! Which kinds of container a scenario's Pod is made of: one kind, the other, or one of each.
//!
//! A scenario names roles: IMAGE and TOOL are the subject's images, OTHER and OTHER_TOOL those of what is beside it. Where nothing is
//! beside it, a Pod of both kinds gets a companion: a sidecar, which begins before the containers and ends after them, so that
//! of the Pod the same is told as without it, but for what is told of any Pod with init containers ([`crate::told`]).

/// The two kinds, and the two builds of everything that the scenarios run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Wasm,
    Container,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Container => "container",
        }
    }

    /// echo, as it is loaded on the node.
    pub(crate) fn image(self) -> &'static str {
        match self {
            Self::Wasm => "samples.wherry.dev/echo:wasm",
            Self::Container => "samples.wherry.dev/echo:container",
        }
    }

    /// A program that copies its input to its output, and fails where it is given many arguments.
    pub(crate) fn tool(self) -> &'static str {
        match self {
            Self::Wasm => "tests.wherry.dev/tool:wasm",
            Self::Container => "tests.wherry.dev/tool:container",
        }
    }
}

/// How a scenario's roles are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrangement {
    Wasm,
    Container,
    /// The subject is WebAssembly, what is beside it a container.
    Mixed,
}

/// Listens where the subject does not.
const COMPANION: &str = "initContainers: [{name: companion, image: OTHER, restartPolicy: Always, env: [{name: PORT, value: '8090'}], ports: [{containerPort: 8090}]}]";

impl Arrangement {
    pub(crate) const ALL: [Self; 3] = [Self::Wasm, Self::Container, Self::Mixed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Container => "container",
            Self::Mixed => "mixed",
        }
    }

    /// The subject's kind, and of what is beside it.
    pub(crate) fn kinds(self) -> (Kind, Kind) {
        match self {
            Self::Wasm => (Kind::Wasm, Kind::Wasm),
            Self::Container => (Kind::Container, Kind::Container),
            Self::Mixed => (Kind::Wasm, Kind::Container),
        }
    }

    /// Whether the Pod of a manifest gets a companion.
    pub(crate) fn accompanies(self, manifest: &str) -> bool {
        self == Self::Mixed && manifest.contains("COMPANION") && !manifest.contains("OTHER")
    }

    /// A manifest with its roles filled.
    pub(crate) fn fill(self, manifest: &str) -> String {
        let companion = if self.accompanies(manifest) { COMPANION } else { "" };
        let filled = manifest.replace("COMPANION", companion);
        self.roles().into_iter().fold(filled, |text, (role, image)| text.replace(role, image))
    }

    /// The roles and their images, in the order in which they are to be replaced.
    pub(crate) fn roles(self) -> [(&'static str, &'static str); 4] {
        let (subject, other) = self.kinds();
        [("OTHER_TOOL", other.tool()), ("TOOL", subject.tool()), ("OTHER", other.image()), ("IMAGE", subject.image())]
    }
}
