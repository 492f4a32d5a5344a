//! The server: its parts put together.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Chain;
use crate::aggregate::{self, Aggregator};
use crate::allocate::services::Services;
use crate::audit::layer::Auditor;
use crate::config::Config;
use crate::engine::{self, Engine};
use crate::history::History;
use crate::layers::authenticate::{Authenticators, TokenAuthenticator};
use crate::layers::authorize::Authorizer;
use crate::layers::info::RequestInfo;
use crate::layers::limit::{self, Limits};
use crate::layers::measure::{self, Measure};
use crate::layers::union::{Masters, Union};
use crate::layers::{authenticate, authorize, failures, impersonate, rescue};
use crate::metrics::Metrics;
use crate::node_authorizer::NodeAuthorizer;
use crate::quota::{self, Ledger};
use crate::rbac::{self, Rbac};
use crate::respond::Failure;
use crate::serving::Patience;
use crate::tokens::{self, BootstrapTokens, Issuer, KeyError, Keys, ServiceAccounts};
use crate::user::MASTERS;
use crate::{User, audit, bootstrap, client, documents, endpoints, expiry, history, objects, serving};

/// Why a server could not be put together or served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The state in the store could not be read.
    #[error("read the store: {0}")]
    Store(wherry_api::status::Status),
    /// An object that every cluster has could not be made.
    #[error("bootstrap {what}: {source}")]
    Bootstrap {
        /// The object.
        what: String,
        /// What the server said.
        source: Box<kube::Error>,
    },
    /// There is no key for service account tokens.
    #[error("service account tokens: {0}")]
    Keys(#[from] KeyError),
    /// The listener failed.
    #[error("listen: {0}")]
    Listen(#[from] std::io::Error),
}

/// The API server. Cheap to clone: all clones are the same server.
#[derive(Clone)]
pub struct Server {
    engine: Arc<Engine>,
    router: Router,
    patience: Patience,
}

impl Server {
    /// A server over the given parts. Reads from the store which cluster IPs and node ports are taken.
    pub fn new(config: Config) -> Result<Self, ServerError> {
        let Config {
            store,
            registry,
            nodes,
            front_proxy,
            issuer,
            tokens,
            audit,
            metrics,
            cluster,
            patience,
            bookmark_interval,
            event_lifetime,
            history_lifetime,
        } = config;
        let issuer = match issuer {
            Some(issuer) => issuer,
            None => Arc::new(Issuer::of_cluster(&cluster.domain, Keys::generate()?)),
        };
        let authenticators = authenticators(&issuer, &store, tokens);
        let rbac = Arc::new(Rbac::new(Arc::clone(&store)));
        let authorizer: Arc<dyn Authorizer> = Arc::new(Union(vec![
            Arc::new(Masters),
            Arc::new(NodeAuthorizer::new(Arc::clone(&store), rbac::defaults::node_rules())),
            Arc::<Rbac>::clone(&rbac),
        ]));
        let aggregator = Aggregator::new(Arc::clone(&store), front_proxy);
        let reserved = vec![cluster.api_ip, cluster.dns_ip];
        let services = Services::new(cluster.service_cidr, cluster.node_ports.clone(), reserved);
        let engine = Arc::new(Engine {
            store,
            registry,
            admission: Chain::builtin(),
            services: Arc::new(services),
            quotas: Ledger::default(),
            authorizer: Arc::clone(&authorizer),
            rbac,
            authenticators: Arc::clone(&authenticators),
            issuer,
            nodes,
            aggregator,
            cluster,
            bookmark_interval,
            event_lifetime,
            history_lifetime,
            history: History::default(),
            metrics: Metrics::new(metrics),
            tasks: TaskTracker::new(),
        });
        for entry in engine.everything("services").map_err(ServerError::Store)? {
            engine.services.recover(&objects::stored_tree(&entry).map_err(ServerError::Store)?);
        }
        let auditor = Auditor { audit, registry: Arc::clone(&engine.registry) };
        let measure = Measure { metrics: Arc::clone(&engine.metrics), registry: Arc::clone(&engine.registry) };
        // The last layer is the outermost.
        let router = endpoints::router()
            .merge(documents::router())
            .merge(tokens::router())
            .method_not_allowed_fallback(|| async { Failure(engine::method_not_allowed()) })
            .fallback(engine::dispatch)
            .with_state(Arc::clone(&engine))
            .layer(middleware::from_fn_with_state(Arc::clone(&engine), aggregate::layer))
            .layer(middleware::from_fn_with_state(Arc::clone(&authorizer), authorize::layer))
            .layer(middleware::from_fn(audit::layer::acting))
            .layer(middleware::from_fn_with_state(authorizer, impersonate::layer))
            .layer(middleware::from_fn_with_state(Limits::new(), limit::layer))
            .layer(middleware::from_fn_with_state(auditor.clone(), audit::layer::layer))
            .layer(middleware::from_fn_with_state(authenticators, authenticate::layer))
            .layer(middleware::from_fn_with_state(auditor, audit::layer::unknown))
            .layer(middleware::from_fn_with_state(measure, measure::layer))
            .layer(middleware::from_fn(read_info))
            .layer(middleware::from_fn(rescue::layer))
            .layer(middleware::from_fn(failures::layer));
        Ok(Self { engine, router, patience })
    }

    /// A client in this process that acts as `user`.
    pub fn client(&self, user: User) -> kube::Client {
        client::client(self.router.clone(), user)
    }

    /// Serves `listener` until `cancel` fires and the last connection has ended. `tls` comes from
    /// [`Pki::server_tls`](crate::pki::Pki::server_tls). May be called for several listeners.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        cancel: CancellationToken,
    ) -> Result<(), ServerError> {
        serving::serve(listener, tls, self.router.clone(), self.patience, cancel).await?;
        Ok(())
    }

    /// Does what must be done beside answering, until `cancel` fires: events are deleted when their time
    /// ([`Config::event_lifetime`]) has come, the usage of quotas is counted, and APIServices say what can be had. One call a store
    /// is enough.
    pub async fn maintain(&self, cancel: CancellationToken) {
        let events = expiry::run(Arc::clone(&self.engine), self.engine.event_lifetime, cancel.clone());
        let history = history::run(Arc::clone(&self.engine), self.engine.history_lifetime, cancel.clone());
        let apis = self.client(User::new("system:apiserver", [MASTERS]));
        let apis = aggregate::run(Arc::clone(&self.engine), apis, cancel.clone());
        tokio::join!(events, history, apis, quota::run(Arc::clone(&self.engine), cancel));
    }

    /// Makes the objects that every cluster has, where they are missing: the first namespaces, the Service
    /// `kubernetes` and where it leads, the system's priority classes, the Wasm runtime classes, the default roles and
    /// bindings. Nobody but the group `system:masters` may do anything before.
    pub async fn bootstrap(&self) -> Result<(), ServerError> {
        let client = self.client(User::admin());
        bootstrap::run(&client, &self.engine.cluster, self.engine.aggregator.front_proxy()).await?;
        rbac::defaults::ensure(&self.engine, &client).await
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// All authenticators of tokens: those whose tokens the cluster keeps, then `others`.
fn authenticators(
    issuer: &Arc<Issuer>,
    store: &Arc<dyn wherry_store::Store>,
    others: Vec<Arc<dyn TokenAuthenticator>>,
) -> Arc<Authenticators> {
    let accounts = ServiceAccounts::new(Arc::clone(issuer), Arc::clone(store));
    let bootstrap = BootstrapTokens::new(Arc::clone(store));
    let own: [Arc<dyn TokenAuthenticator>; 2] = [Arc::new(accounts), Arc::new(bootstrap)];
    let list = own.into_iter().chain(others).collect();
    Arc::new(Authenticators::new(list, Arc::clone(issuer.audiences())))
}

/// Reads what the request asks for, once.
async fn read_info(mut request: Request, next: Next) -> Response {
    let info = Arc::new(RequestInfo::parse(request.method(), request.uri()));
    request.extensions_mut().insert(info);
    next.run(request).await
}
