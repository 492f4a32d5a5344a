//! A server on a port of 127.0.0.1, with its certificates in a directory of its own.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ServiceAccount;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wherry_server::pki::{Credentials, Kubeconfig, Pki};
use wherry_server::{Config, Server, ServerError, User};
use wherry_store::MemoryStore;

pub(crate) struct Running {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) pki: Pki,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) cancel: CancellationToken,
    task: JoinHandle<Result<(), ServerError>>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A server whose configuration `change` has changed.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let mut config = Config::new(Arc::new(MemoryStore::new()));
        change(&mut config);
        let tls = pki.server_tls(&pki.serving(&config.cluster.api_names([])).unwrap()).unwrap();
        let server = Server::new(config).unwrap();
        server.bootstrap().await.unwrap();
        let mut account = ServiceAccount::default();
        account.metadata.name = Some("default".to_owned());
        let accounts = kube::Api::<ServiceAccount>::namespaced(server.client(User::admin()), "default");
        accounts.create(&kube::api::PostParams::default(), &account).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let task = tokio::spawn({
            let cancel = cancel.clone();
            async move { server.serve(listener, tls, cancel).await }
        });
        Self { dir, pki, address, cancel, task }
    }

    pub(crate) fn kubeconfig(&self, credentials: Credentials) -> Kubeconfig {
        Kubeconfig {
            name: "wherry".to_owned(),
            server: format!("https://{}", self.address),
            ca: self.pki.ca_certificate().to_owned(),
            credentials,
        }
    }

    /// Writes the administrator's kubeconfig.
    pub(crate) fn admin_file(&self) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        self.kubeconfig(self.pki.admin().unwrap()).write(&path).unwrap();
        path
    }

    /// A client over TLS.
    pub(crate) async fn client(&self, user: &User) -> kube::Client {
        let credentials = self.pki.client(&user.name.replace(':', "-"), user).unwrap();
        let text = self.kubeconfig(credentials).to_yaml();
        let parsed = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let config = kube::Config::from_custom_kubeconfig(parsed, &Default::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// A client over TLS with a token and no certificate.
    pub(crate) fn bearer<K>(&self, token: &str) -> kube::Api<K>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let mut config = kube::Config::new(format!("https://{}", self.address).parse().unwrap());
        let ca = rustls_pki_types::CertificateDer::from_pem_slice(self.pki.ca_certificate().as_bytes()).unwrap();
        config.root_cert = Some(vec![ca.as_ref().to_vec()]);
        config.auth_info.token = Some(token.to_owned().into());
        kube::Api::all(kube::Client::try_from(config).unwrap())
    }

    /// Ends the server and waits for it.
    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
    }
}
