//! How many requests are under way, fairly by user: who sends too many waits for itself.
//!
//! Reads and writes have seats of their own (upstream's numbers), so that neither starves the other. When all are taken, requests
//! wait in a line of their user's, and a seat that is given back goes to the users in turn; nobody holds all seats. A line that is too
//! long, or a wait that takes too long, is 429, which tells clients to come back. This is upstream's priority and fairness
//! in light: shares by user instead of configured flows.
//!
//! Not counted are streams, health checks, administrators (who may have to repair an overloaded cluster), the leases of nodes
//! (which would else count as dead) and the cluster's own parts in this process.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use wherry_api::status::Status;

use super::info::{RequestInfo, Verb};
use crate::User;
use crate::respond::Failure;
use crate::serving::Peer;
use crate::user::MASTERS;

const READS: Limit = Limit { seats: 400, per_user: 300, line: 100, lines: 2000, patience: Duration::from_secs(15) };
const WRITES: Limit = Limit { seats: 200, per_user: 150, line: 100, lines: 2000, patience: Duration::from_secs(15) };

/// What a gate lets through.
#[derive(Clone, Copy)]
struct Limit {
    /// Requests under way.
    seats: usize,
    /// Requests under way for one user.
    per_user: usize,
    /// Requests of one user that wait.
    line: usize,
    /// Requests that wait in all.
    lines: usize,
    /// How long a request waits.
    patience: Duration,
}

/// The gates that requests pass.
#[derive(Clone)]
pub(crate) struct Limits {
    reads: Arc<Gate>,
    writes: Arc<Gate>,
}

impl Limits {
    pub(crate) fn new() -> Self {
        Self { reads: Arc::new(Gate::new(READS)), writes: Arc::new(Gate::new(WRITES)) }
    }
}

/// Holds a seat while the request is answered, or says 429.
pub(crate) async fn layer(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let Some((info, user)) = counted(&request) else {
        return next.run(request).await;
    };
    let gate = match info.verb {
        Verb::Get | Verb::List | Verb::Other(_) => &limits.reads,
        _ => &limits.writes,
    };
    match gate.enter(&user.name).await {
        Some(_seat) => next.run(request).await,
        None => Failure(Status::too_many_requests("too many requests, please try again later", 1)).into_response(),
    }
}

/// What the request asks for and for whom, if it counts.
fn counted(request: &Request) -> Option<(&RequestInfo, &User)> {
    let extensions = request.extensions();
    let info = extensions.get::<Arc<RequestInfo>>()?;
    let user = extensions.get::<User>()?;
    let remote = extensions.get::<Peer>().is_some();
    let lease = info.group == "coordination.k8s.io" && info.resource == "leases" && user.in_group("system:nodes");
    let exempt = user.in_group(MASTERS) || lease;
    (remote && !exempt && info.is_resource && !info.is_long_running()).then_some((info.as_ref(), user))
}

struct Gate {
    limit: Limit,
    state: Mutex<Lines>,
}

/// Who is in and who waits. Invariant: while a seat is free, nobody waits but users who hold all that they may.
#[derive(Default)]
struct Lines {
    taken: usize,
    held: HashMap<String, usize>,
    waiting: HashMap<String, VecDeque<(u64, oneshot::Sender<()>)>>,
    /// Users who wait, the next one first.
    turns: VecDeque<String>,
    waiters: usize,
    tickets: u64,
}

impl Lines {
    fn has_room(&self, limit: &Limit, user: &str) -> bool {
        self.taken < limit.seats && self.held.get(user).copied().unwrap_or(0) < limit.per_user
    }

    fn take(&mut self, user: &str) {
        self.taken += 1;
        *self.held.entry(user.to_owned()).or_default() += 1;
    }

    /// Gives a seat back and hands out what is free.
    fn leave(&mut self, limit: &Limit, user: &str) {
        self.taken -= 1;
        if let Some(held) = self.held.get_mut(user) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(user);
            }
        }
        self.admit(limit);
    }

    fn admit(&mut self, limit: &Limit) {
        for _ in 0..self.turns.len() {
            let Some(user) = self.turns.pop_front() else {
                return;
            };
            if self.taken >= limit.seats {
                return self.turns.push_front(user);
            }
            if self.has_room(limit, &user)
                && let Some((_, bell)) = self.waiting.get_mut(&user).and_then(VecDeque::pop_front)
            {
                self.waiters -= 1;
                self.take(&user);
                // Whoever has gone meanwhile gives the seat back itself: see `Waiter`.
                let _ = bell.send(());
            }
            match self.waiting.get(&user).is_some_and(|line| !line.is_empty()) {
                true => self.turns.push_back(user),
                false => drop(self.waiting.remove(&user)),
            }
        }
    }

    /// Takes a request out of its line; false if it is not there, since it was let in.
    fn quit(&mut self, user: &str, ticket: u64) -> bool {
        let Some(line) = self.waiting.get_mut(user) else {
            return false;
        };
        let Some(at) = line.iter().position(|(number, _)| *number == ticket) else {
            return false;
        };
        line.remove(at);
        self.waiters -= 1;
        if line.is_empty() {
            self.waiting.remove(user);
            self.turns.retain(|waiting| waiting != user);
        }
        true
    }
}

/// A seat; given back when it is dropped.
struct Seat {
    gate: Arc<Gate>,
    user: String,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gate.state.lock().leave(&self.gate.limit, &self.user);
    }
}

/// A place in a line; left when it is dropped.
struct Waiter {
    gate: Arc<Gate>,
    user: String,
    ticket: u64,
    seated: bool,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut lines = self.gate.state.lock();
        if !self.seated && !lines.quit(&self.user, self.ticket) {
            lines.leave(&self.gate.limit, &self.user);
        }
    }
}

impl Gate {
    fn new(limit: Limit) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// A seat for `user`, perhaps after a wait; none if there are too many before it.
    async fn enter(self: &Arc<Self>, user: &str) -> Option<Seat> {
        let (mut waiter, bell) = {
            let mut lines = self.state.lock();
            let line = lines.waiting.get(user).map_or(0, VecDeque::len);
            if line == 0 && lines.has_room(&self.limit, user) {
                lines.take(user);
                return Some(Seat { gate: Arc::clone(self), user: user.to_owned() });
            }
            if line >= self.limit.line || lines.waiters >= self.limit.lines {
                return None;
            }
            let (ring, bell) = oneshot::channel();
            lines.tickets += 1;
            lines.waiters += 1;
            let ticket = lines.tickets;
            lines.waiting.entry(user.to_owned()).or_default().push_back((ticket, ring));
            if line == 0 {
                lines.turns.push_back(user.to_owned());
            }
            (Waiter { gate: Arc::clone(self), user: user.to_owned(), ticket, seated: false }, bell)
        };
        tokio::time::timeout(self.limit.patience, bell).await.ok()?.ok()?;
        waiter.seated = true;
        Some(Seat { gate: Arc::clone(self), user: user.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use futures::FutureExt as _;
    use tokio::sync::Notify;
    use tower::ServiceExt as _;

    use super::*;

    fn limit(seats: usize, per_user: usize, line: usize) -> Limit {
        Limit { seats, per_user, line, lines: 100, patience: Duration::from_secs(15) }
    }

    fn gate(seats: usize, per_user: usize, line: usize) -> Arc<Gate> {
        Arc::new(Gate::new(limit(seats, per_user, line)))
    }

    fn request(method: &str, path: &str, user: User) -> Request {
        let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let info = RequestInfo::parse(request.method(), request.uri());
        let extensions = request.extensions_mut();
        extensions.insert(Arc::new(info));
        extensions.insert(Peer::default());
        extensions.insert(user);
        request
    }

    #[tokio::test]
    async fn what_is_too_much_is_refused_and_a_seat_is_given_back() {
        let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (entered, go) = (Arc::clone(&entered), Arc::clone(&go));
            move |request: Request| async move {
                if request.uri().path().ends_with("slow") {
                    entered.notify_one();
                    go.notified().await;
                }
                "ok"
            }
        };
        let limits = Limits { reads: gate(1, 1, 0), writes: gate(1, 1, 0) };
        let router = Router::new().fallback(handler).layer(from_fn_with_state(limits, layer));
        let ask = |method: &str, path: &str, user: User| router.clone().oneshot(request(method, path, user));
        let node = || User::node("a");
        let slow = tokio::spawn(ask("GET", "/api/v1/pods/slow", node()));
        entered.notified().await;
        let refused = ask("GET", "/api/v1/nodes", node()).await.unwrap();
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["retry-after"], "1");
        for (method, path, user) in [
            ("POST", "/api/v1/nodes", node()),
            ("GET", "/api/v1/nodes?watch=1", node()),
            ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a", node()),
            ("GET", "/livez", User::anonymous()),
            ("GET", "/api/v1/nodes", User::admin()),
        ] {
            assert_eq!(ask(method, path, user).await.unwrap().status(), 200, "{method} {path}");
        }
        go.notify_one();
        assert_eq!(slow.await.unwrap().unwrap().status(), 200);
        assert_eq!(ask("GET", "/api/v1/nodes", node()).await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn a_seat_goes_to_the_users_in_turn() {
        let gate = gate(1, 1, 10);
        let first = gate.enter("busy").await.unwrap();
        // The busy one stands in line many times before the other one comes.
        let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(gate.enter("busy"))).collect();
        assert!(waiting.iter_mut().all(|wait| wait.now_or_never().is_none()));
        let mut other = Box::pin(gate.enter("other"));
        assert!(other.as_mut().now_or_never().is_none());
        drop(first);
        let second = waiting[0].as_mut().now_or_never().unwrap().unwrap();
        drop(second);
        let others = other.as_mut().now_or_never().unwrap().unwrap();
        assert!(waiting[1].as_mut().now_or_never().is_none());
        drop(others);
        assert!(waiting[1].as_mut().now_or_never().unwrap().is_some());
    }

    #[tokio::test]
    async fn nobody_holds_all_seats() {
        let gate = gate(4, 3, 1);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(gate.enter("busy").await.unwrap());
        }
        let mut more = Box::pin(gate.enter("busy"));
        assert!(more.as_mut().now_or_never().is_none());
        assert!(gate.enter("busy").now_or_never().unwrap().is_none(), "the line is full");
        let other = gate.enter("other").now_or_never().unwrap().unwrap();
        drop(other);
        assert!(more.as_mut().now_or_never().is_none());
        held.pop();
        assert!(more.as_mut().now_or_never().unwrap().is_some());
    }

    #[tokio::test]
    async fn a_wait_ends_and_leaves_nothing_behind() {
        let gate = Arc::new(Gate::new(Limit { patience: Duration::from_millis(1), ..limit(1, 1, 10) }));
        let seat = gate.enter("a").await.unwrap();
        assert!(gate.enter("b").await.is_none());
        // One that is let in and has gone gives its seat on.
        let mut gone = Box::pin(gate.enter("b"));
        assert!(gone.as_mut().now_or_never().is_none());
        let mut stays = Box::pin(gate.enter("c"));
        assert!(stays.as_mut().now_or_never().is_none());
        drop(seat);
        drop(gone);
        drop(stays.as_mut().now_or_never().unwrap().unwrap());
        let lines = gate.state.lock();
        assert_eq!(
            (lines.taken, lines.waiters, lines.held.len(), lines.waiting.len(), lines.turns.len()),
            (0, 0, 0, 0, 0)
        );
    }
}
