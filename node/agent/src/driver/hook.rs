//! postStart and preStop: what is asked of a running container beside its own work.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use wherry_runtime::collect;

use crate::clock::Clock;
use crate::probe::http::{Question, Refused};
use crate::probe::run::Target;

/// Nothing bounds a hook but the grace of its container or, at the start, its container's life.
const LIMIT: Duration = Duration::from_secs(24 * 3600);
/// What is kept of a command's output.
const OUTPUT: usize = 4096;

/// Runs a hook to its end. Any answer to a request will do; a command has to succeed.
pub(super) async fn run(
    hook: &LifecycleHandler,
    container: &Container,
    target: &Target,
    clock: &Clock,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        match collect(&*target.runtime, &target.id, &command, OUTPUT).await {
            Ok(output) if output.code == 0 => Ok(()),
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text);
                Err(format!("command '{}' exited with {}: {text}", command.join(" "), output.code))
            }
            Err(error) => Err(error.to_string()),
        }
    } else if let Some(http) = &hook.http_get {
        let question = Question::new(http, container, target.ip, "kube-lifecycle/1.36");
        let asked = async { question?.ask(target, LIMIT).await };
        asked.await.map(drop).map_err(|(Refused::Failure(message) | Refused::Error(message))| message)
    } else if let Some(sleep) = &hook.sleep {
        clock.sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
        Ok(())
    } else {
        Err("invalid handler: the hook says neither exec nor httpGet nor sleep".to_owned())
    }
}
