//! Bearer tokens over TLS.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use wherry_server::User;

use crate::harness::Running;

#[tokio::test]
async fn a_service_account_comes_in_by_its_token() {
    let running = Running::start().await;
    let admin = running.client(&User::admin()).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
    let mut account = ServiceAccount::default();
    account.metadata.name = Some("robot".to_owned());
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let request = TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
    let issued = accounts.create_token_request("robot", &PostParams::default(), &request).await.unwrap();
    let token = issued.status.unwrap().token.unwrap();

    let reviewed = running.bearer(&token).create(&PostParams::default(), &SelfSubjectReview::default()).await.unwrap();
    let user = reviewed.status.unwrap().user_info.unwrap();
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:default:robot"));
    let bad = running.bearer(&format!("{token}x")).create(&PostParams::default(), &SelfSubjectReview::default()).await;
    assert!(matches!(bad, Err(kube::Error::Api(status)) if status.code == 401));
    running.stop().await;
}
